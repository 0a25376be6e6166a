//! Which services a run uses, how they are started and how they are found again.
//!
//! | mode | when `--services auto` takes it |
//! | --- | --- |
//! | external | the four `CONTEXTKEEP_TEST_*` URLs are set |
//! | compose | `docker version` and `docker compose version` both succeed: an engine and the plugin answer |
//! | local | else: binaries that are there, or that root installs with apt |
//!
//! A record of what was started is written *before* it is started, so that `cargo xtask down` finds it even if
//! this process is killed half way.

mod apt;
mod compose;
mod record;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use contextkeep_test_support::services::{Mode, Urls};
use contextkeep_test_support::{Error, Folder, Lifetime, Services, keys, locate, teardown};

pub(crate) use self::record::Record;

/// What the command line asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// The first of external, compose and local that is possible
    Auto,
    /// Docker Compose
    Compose,
    /// Local binaries
    Local,
    /// The URLs in the environment
    External,
}

/// Services that run, and what ends them.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where they are.
    pub(crate) services: Services,
    /// Present when dropping this value is what ends local ones.
    folder: Option<Arc<Folder>>,
    record: Record,
    lifetime: Lifetime,
}

impl Running {
    /// Finds or starts the services and says in one line which and why.
    pub(crate) fn start(choice: Choice, lifetime: Lifetime) -> Result<Self> {
        let (mode, why) = choose(choice)?;
        eprintln!("services: {mode:?} ({why})");
        match mode {
            Mode::External => {
                let urls =
                    Urls::from_env()?.context("external services were asked for and no URLs are set")?;
                Self::elsewhere(Mode::External, urls, lifetime, Record::new(lifetime)?)
            }
            Mode::Compose => {
                let project = compose::project(lifetime);
                let record = Record::new(lifetime)?.of_compose(project.clone())?;
                match compose::up(&project) {
                    Ok(urls) => Self::elsewhere(Mode::Compose, urls, lifetime, record),
                    Err(error) => end(&record).and(Err(error)),
                }
            }
            Mode::Local => Self::local(lifetime),
        }
    }

    fn elsewhere(mode: Mode, urls: Urls, lifetime: Lifetime, record: Record) -> Result<Self> {
        Self {
            services: Services::elsewhere(mode, urls),
            folder: None,
            record,
            lifetime,
        }
        .saved()
    }

    fn local(lifetime: Lifetime) -> Result<Self> {
        install_missing()?;
        let folder = Arc::new(Folder::create(lifetime)?);
        let record = Record::new(lifetime)?.of_folder(folder.root())?;
        let started = Services::start_local(&folder);
        if started.is_err() && lifetime == Lifetime::Detached {
            teardown(folder.root(), true)?;
            eprintln!("server logs kept in {}", folder.logs().display());
            record.remove();
        }
        if started.is_err() {
            folder.keep_logs();
        }
        Self {
            services: started?,
            folder: Some(folder),
            record,
            lifetime,
        }
        .saved()
    }

    fn saved(self) -> Result<Self> {
        self.services.save(&self.record.services_file())?;
        Ok(self)
    }

    /// The variable that lets tests attach to them.
    pub(crate) fn env(&self) -> (&'static str, PathBuf) {
        (keys::SERVICES, self.record.services_file())
    }

    /// Keeps the servers' logs, because something failed.
    pub(crate) fn keep_logs(&self) {
        if let Some(folder) = &self.folder {
            folder.keep_logs();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Detached {
            return;
        }
        // A folder ends what is in it by its own drop; the record goes first, and is not needed for that.
        let ended = match self.folder {
            Some(_) => {
                self.record.remove();
                Ok(())
            }
            None => end(&self.record),
        };
        if let Err(error) = ended {
            eprintln!("could not take the services down: {error:#}");
        }
    }
}

/// Ends what a record describes.
pub(crate) fn end(record: &Record) -> Result<()> {
    if let Some(root) = record.root() {
        teardown(root, false)?;
    }
    if let Some(project) = record.compose() {
        compose::down(project)?;
    }
    record.remove();
    Ok(())
}

/// Whether local servers can be started, for the tests that start their own.
pub(crate) fn binaries() -> Result<(), String> {
    locate::postgres()
        .and_then(|_| locate::redis())
        .and_then(|_| locate::pgbouncer())
        .map(drop)
        .map_err(|error| error.to_string())
}

fn choose(choice: Choice) -> Result<(Mode, &'static str)> {
    Ok(match choice {
        Choice::External => (Mode::External, "asked for"),
        Choice::Compose => {
            if !compose::answers() {
                bail!("Docker Compose was asked for, and no engine with the compose plugin answers");
            }
            (Mode::Compose, "asked for")
        }
        Choice::Local => (Mode::Local, "asked for"),
        Choice::Auto if Urls::from_env()?.is_some() => (Mode::External, "their URLs are in the environment"),
        Choice::Auto if compose::answers() => {
            (Mode::Compose, "a Docker engine and the compose plugin answer")
        }
        Choice::Auto => (
            Mode::Local,
            "no URLs are set and no Docker engine with the compose plugin answers",
        ),
    })
}

fn install_missing() -> Result<()> {
    let mut missing = Vec::new();
    let mut errors = Vec::new();
    for (package, found) in [
        ("postgresql", locate::postgres()),
        ("redis-server", locate::redis()),
        ("pgbouncer", locate::pgbouncer()),
    ] {
        match found {
            Ok(_) => {}
            Err(error @ Error::NotFound { .. }) => {
                missing.push(package);
                errors.push(error.to_string());
            }
            // A variable that points nowhere is mended by whoever set it, not by installing something else.
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !apt::is_ours() {
        bail!("{}", errors.join("\n"));
    }
    apt::install(&missing)?;
    binaries().map_err(anyhow::Error::msg)
}
