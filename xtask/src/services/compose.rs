//! The services by Docker Compose, from the file that users start the whole product with.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use contextkeep_test_support::services::Urls;
use contextkeep_test_support::{Lifetime, ports, process};

use crate::sh;

/// Everything but the product itself.
const SERVERS: [&str; 7] = [
    "postgres-primary",
    "postgres-replica-1",
    "postgres-replica-2",
    "redis-1",
    "redis-2",
    "redis-3",
    "redis",
];
/// The variables that set their ports, in the same order.
const PORTS: [&str; 7] = [
    "PRIMARY_PORT",
    "REPLICA_1_PORT",
    "REPLICA_2_PORT",
    "REDIS_1_PORT",
    "REDIS_2_PORT",
    "REDIS_3_PORT",
    "REDIS_PORT",
];
/// How long taking everything down may take.
const DOWN_TIMEOUT: Duration = Duration::from_mins(2);
/// Seconds until `docker compose up --wait` gives up; images may have to be pulled first.
const WAIT_SECONDS: &str = "600";

/// Whether there is an engine and the plugin: a `docker` on `PATH` proves neither.
pub(super) fn answers() -> bool {
    [&["version"][..], &["compose", "version"]]
        .into_iter()
        .all(|args| sh::succeeds(&mut sh::command("docker", args.iter().copied())))
}

/// The project's name: one for `up`, another for `test`, so that neither ends the other's.
pub(super) fn project(lifetime: Lifetime) -> String {
    match lifetime {
        Lifetime::Owner => format!("contextkeep-test-{}", std::process::id()),
        Lifetime::Detached => "contextkeep-up".to_owned(),
    }
}

/// Starts the servers on free ports and forms the cluster.
pub(super) fn up(project: &str) -> Result<Urls> {
    // A node's bus listens 10000 above its port: keep both in range, inside the container too.
    let mut free: Vec<u16> = ports::free(64)?
        .into_iter()
        .filter(|port| *port < 55_000)
        .collect();
    free.truncate(PORTS.len());
    anyhow::ensure!(free.len() == PORTS.len(), "not enough free ports below 55000");
    let vars: Vec<(String, String)> = PORTS
        .iter()
        .zip(&free)
        .map(|(name, port)| (format!("CONTEXTKEEP_{name}"), port.to_string()))
        .collect();
    let compose = |args: &[&str]| {
        let mut command = compose(project, args);
        command.envs(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // Tests run on the host, so the nodes have to announce an address that the host reaches.
        command.env("CONTEXTKEEP_REDIS_ANNOUNCE_IP", "127.0.0.1");
        command
    };
    sh::run(&mut compose(
        &[
            &["up", "--detach", "--wait", "--wait-timeout", WAIT_SECONDS],
            &SERVERS[..],
        ]
        .concat(),
    ))?;
    sh::run(&mut compose(&["run", "--rm", "redis-cluster-init"]))?;
    urls(&free).context("a port is missing")
}

/// Ends and forgets everything in the project.
pub(super) fn down(project: &str) -> Result<()> {
    let mut command = compose(
        project,
        &["down", "--volumes", "--remove-orphans", "--timeout", "5"],
    );
    // Not by `sh`: this has to run after an interruption too.
    process::run(&mut command, DOWN_TIMEOUT)
        .map(drop)
        .context("docker compose down failed")
}

fn urls(ports: &[u16]) -> Option<Urls> {
    let pg = |port: &u16| format!("postgres://contextkeep:contextkeep@127.0.0.1:{port}/contextkeep");
    let redis = |port: &u16| format!("redis://127.0.0.1:{port}");
    let [primary, replicas @ .., node_1, node_2, node_3, single] = ports else {
        return None;
    };
    Some(Urls {
        pg_primary: pg(primary),
        pg_replicas: replicas.iter().map(pg).collect(),
        redis: redis(single),
        redis_cluster: [node_1, node_2, node_3].map(redis).to_vec(),
    })
}

fn compose(project: &str, args: &[&str]) -> Command {
    let mut command = sh::command(
        "docker",
        ["compose", "--project-name", project, "--profile", "test"],
    );
    command.args(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_stands_in_the_url_of_its_service() {
        let urls = urls(&[1, 2, 3, 4, 5, 6, 7]).unwrap();
        assert!(urls.pg_primary.contains(":1/") && urls.pg_replicas.len() == 2 && urls.redis.ends_with(":7"));
        assert_eq!(
            urls.redis_cluster,
            [
                "redis://127.0.0.1:4",
                "redis://127.0.0.1:5",
                "redis://127.0.0.1:6"
            ]
        );
    }
}
