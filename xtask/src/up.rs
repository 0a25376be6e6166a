//! `up`, `down` and `status`: the services on their own, for an editor's test runner or a look inside.

use anyhow::{Context, Result, bail};
use contextkeep_test_support::postgres::PgMember;
use contextkeep_test_support::services::Mode;
use contextkeep_test_support::{Lifetime, PgCluster, RedisCluster, RedisNode, Services, keys, wait};

use crate::services::{self, Choice, Record, Running};
use crate::sh;

/// Arguments of `cargo xtask up`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Where the services come from
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    services: Choice,
}

/// Starts the services, or finds them running, and prints what to export: `eval "$(cargo xtask up)"`.
pub(crate) fn up(args: &UpArgs) -> Result<()> {
    if let Some(record) = Record::of_up() {
        match Services::load(&record.services_file()) {
            Ok(services) if answers(&services).is_ok() => {
                eprintln!("services: already up");
                print_exports(&record, &services);
                return Ok(());
            }
            _ => {
                eprintln!("services: a broken `up` is ended first");
                services::end(&record)?;
            }
        }
    }
    let took = wait::stopwatch();
    let running = Running::start(args.services, Lifetime::Detached)?;
    if sh::interrupted() {
        down()?;
        bail!("interrupted");
    }
    eprintln!(
        "services: up in {:.1} s; end them with `cargo xtask down`",
        took().as_secs_f64()
    );
    let record = Record::of_up().context("the record has just been written and is gone")?;
    print_exports(&record, &running.services);
    Ok(())
}

/// Ends what `up` has started, and what a `test` has left that can't do it itself any more.
pub(crate) fn down() -> Result<()> {
    let mut ended = 0;
    for record in Record::all().iter().filter(|record| !record.is_owned()) {
        services::end(record)?;
        eprintln!("services: {} is down", record.name());
        ended += 1;
    }
    if ended == 0 {
        eprintln!("services: nothing is up");
    }
    Ok(())
}

/// Shows what runs; fails when something that should answer does not.
pub(crate) fn status() -> Result<()> {
    let Some(record) = Record::of_up() else {
        println!("down");
        return Ok(());
    };
    let services =
        Services::load(&record.services_file()).context("`up` did not finish; run `cargo xtask down`")?;
    println!("up ({:?})", services.mode);
    for (key, url) in services.urls.to_env() {
        println!("  {key}={url}");
    }
    answers(&services)?;
    if services.mode == Mode::Local {
        println!("  every member answers");
    }
    Ok(())
}

fn print_exports(record: &Record, services: &Services) {
    println!("export {}='{}'", keys::SERVICES, record.services_file().display());
    for (key, url) in services.urls.to_env() {
        println!("export {key}='{url}'");
    }
}

/// Asks each member that we have a handle of; others are their keeper's business.
fn answers(services: &Services) -> Result<()> {
    let postgres = services.postgres().map(PgCluster::members).unwrap_or_default();
    for member in postgres {
        member
            .sql_value("select 1")
            .with_context(|| not_answering(PgMember::name(member)))?;
    }
    let nodes = services
        .redis_cluster()
        .map(RedisCluster::nodes)
        .unwrap_or_default();
    for node in nodes.iter().chain(services.redis()) {
        node.command(&["PING"])
            .with_context(|| not_answering(RedisNode::name(node)))?;
    }
    Ok(())
}

fn not_answering(name: &str) -> String {
    format!("{name} does not answer")
}
