//! The command line. `contextkeep` alone serves.

mod config;
mod ctx;
mod docs;
mod doctor;
mod output;
mod transfer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use contextkeep_config::Loaded;
use contextkeep_core::TenantId;

use crate::app::{self, Parts};
use crate::auth::{ANONYMOUS_TENANT, Principal};
use crate::config::{AppConfig, Sources, load};
use crate::{mcp, telemetry};

/// What a shell gets when the configuration or the command line is wrong.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "contextkeep",
    version,
    about = "A context server for AI agents and IDEs",
    max_term_width = 100
)]
struct Cli {
    /// Configuration file: YAML, TOML or JSON. Also `CONTEXTKEEP_CONFIG`; `contextkeep.yaml` is read if it is there
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the embedded store
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// What is logged, such as `debug` or `info,contextkeep_server=debug`
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve REST and MCP over HTTP (the default)
    Serve {
        /// Address and port; port 0 takes a free one
        #[arg(long, value_name = "ADDRESS")]
        bind: Option<SocketAddr>,
    },
    /// Serve MCP on standard input and output, for a client that starts its servers itself
    Mcp(Tenant),
    /// Bring the schema of the data file or the database up to date
    Migrate,
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Read conversations in: `OpenAI` chat lines or an export
    Import(transfer::Import),
    /// Write contexts out
    Export(transfer::Export),
    /// Work with contexts from a shell; JSON on standard output
    Ctx(ctx::Ctx),
    /// Look for what is wrong with the installation
    Doctor,
    /// Print a generated reference document
    #[command(hide = true)]
    Docs {
        #[arg(value_enum)]
        what: docs::What,
    },
}

/// Whose data a command works on.
#[derive(Debug, clap::Args)]
struct Tenant {
    /// The tenant; without `auth.keys` everybody is `default`
    #[arg(long, global = true, default_value = ANONYMOUS_TENANT, value_parser = TenantId::parse)]
    tenant: TenantId,
}

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Docs { what }) = &cli.command {
        return finish(docs::run(*what));
    }
    if let Some(Command::Config(config::Command::Schema)) = &cli.command {
        return finish(config::schema());
    }
    let sources = cli.sources();
    let loaded = match load(sources.clone()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::complain(&format!("{errors}"));
            return ExitCode::from(USAGE);
        }
    };
    finish(
        cli.command
            .unwrap_or(Command::Serve { bind: None })
            .run(loaded, sources),
    )
}

fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has read enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn sources(&self) -> Sources {
        let named = contextkeep_config::env::var("CONTEXTKEEP_CONFIG").map(PathBuf::from);
        let mut flags = Vec::new();
        if let Some(data) = &self.data {
            flags.push((
                "context_manager.embedded.path",
                data.to_string_lossy().into_owned(),
                "--data",
            ));
        }
        if let Some(filter) = &self.log {
            flags.push(("telemetry.log.filter", filter.clone(), "--log"));
        }
        if let Some(Command::Serve { bind: Some(bind) }) = &self.command {
            flags.push(("server.bind", bind.to_string(), "--bind"));
        }
        Sources {
            file: self.config.clone().or(named),
            flags,
        }
    }
}

impl Command {
    fn run(self, loaded: Loaded<AppConfig>, sources: Sources) -> anyhow::Result<()> {
        let mut log = loaded.value.telemetry.log.clone();
        // A command's own output is what its user looks at; the log is for what goes wrong.
        if !matches!(self, Self::Serve { .. })
            && loaded.source_of("telemetry.log.filter") == contextkeep_config::Source::Default
        {
            "warn".clone_into(&mut log.filter);
        }
        telemetry::install(&log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        match self {
            Self::Serve { .. } => runtime.block_on(app::serve(loaded, sources)),
            Self::Mcp(Tenant { tenant }) => runtime.block_on(with_cache(&loaded.value, async |parts| {
                let limits = loaded.value.context_manager.limits.clone();
                let principal = Principal::local(tenant);
                parts.semantic.start();
                let traces = app::traces(&loaded.value)?;
                let settings = loaded.value.mcp.clone();
                let served =
                    mcp::serve_stdio(parts.manager.clone(), limits, settings, principal, traces.clone());
                let served = served.await;
                if let Some(traces) = traces {
                    traces.close().await;
                }
                Ok(served?)
            })),
            Self::Migrate => runtime.block_on(doctor::migrate(&loaded.value)),
            Self::Config(command) => config::run(&command, &loaded),
            Self::Import(import) => runtime.block_on(with_parts(&loaded.value, async |parts| {
                import.run(&loaded.value, parts).await
            })),
            Self::Export(export) => {
                runtime.block_on(with_parts(&loaded.value, async |parts| export.run(parts).await))
            }
            Self::Ctx(ctx) => runtime.block_on(with_parts(&loaded.value, async |parts| {
                ctx.run(&loaded.value, parts).await
            })),
            Self::Doctor => runtime.block_on(doctor::run(&loaded)),
            Self::Docs { what } => docs::run(what),
        }
    }
}

/// Opens the store, works, and closes it whatever the outcome.
async fn with_parts(
    config: &AppConfig,
    work: impl AsyncFnOnce(&Parts) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    work_on(Parts::open(config)?, work).await
}

/// As [`with_parts`], for what runs as long as a server does.
async fn with_cache(
    config: &AppConfig,
    work: impl AsyncFnOnce(&Parts) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    work_on(Parts::open_cached(config)?, work).await
}

async fn work_on(parts: Parts, work: impl AsyncFnOnce(&Parts) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let outcome = async {
        parts.storage.prepare().await?;
        work(&parts).await
    }
    .await;
    if outcome.is_ok() {
        parts.settle().await;
    }
    parts.close().await;
    outcome
}
