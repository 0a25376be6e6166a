//! Where the servers' programs are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::env::{self, keys};
use crate::{Error, Result, process};

/// Debian and its children keep Postgres' server programs here, out of `PATH`.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";
/// What the harness runs of Postgres.
const POSTGRES_PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];
/// `CLUSTER ADDSLOTSRANGE` and `--cluster-port` appeared in 7.0.
const OLDEST_REDIS: u32 = 7;
/// `pg_reload_conf()` applies a new `primary_conninfo` since 13.
const OLDEST_POSTGRES: u32 = 13;

/// The folder with `initdb`, `postgres` and `pg_basebackup`.
///
/// Looked for in `$PG_BIN`, Debian's versioned folders (newest first), what `pg_config --bindir` says, and `PATH`.
///
/// # Errors
///
/// [`Error::NotFound`] with what to install, [`Error::State`] when `$PG_BIN` is set and lacks one of them.
pub fn postgres() -> Result<PathBuf> {
    let complete = |folder: &PathBuf| {
        POSTGRES_PROGRAMS
            .iter()
            .all(|program| is_program(&folder.join(program)))
    };
    if let Some(given) = env::get(keys::PG_BIN).map(PathBuf::from) {
        return Some(given)
            .filter(complete)
            .ok_or_else(|| points_nowhere(keys::PG_BIN));
    }
    let asked = || {
        let answer = process::run(Command::new("pg_config").arg("--bindir"), Duration::from_secs(5)).ok()?;
        Some(PathBuf::from(answer.trim()))
    };
    let mut places = versioned(Path::new(DEBIAN_POSTGRES))
        .into_iter()
        .chain(std::iter::once_with(asked).flatten())
        .chain(env::path_folders());
    places.find(complete).ok_or_else(|| Error::NotFound {
        program: "postgres".to_owned(),
        hint: format!(
            "install Postgres {OLDEST_POSTGRES} or newer (Debian: apt-get install postgresql), or set {} to its bin folder",
            keys::PG_BIN
        ),
    })
}

/// `redis-server` or `valkey-server`: `$REDIS_SERVER`, else the first of them on `PATH`.
///
/// # Errors
///
/// [`Error::NotFound`] with what to install, also when it is older than 7.0; [`Error::State`] when
/// `$REDIS_SERVER` is set and is no program.
pub fn redis() -> Result<PathBuf> {
    let on_path = || {
        let names = ["redis-server", "valkey-server"];
        names.into_iter().flat_map(|name| {
            env::path_folders()
                .into_iter()
                .map(move |folder| folder.join(name))
        })
    };
    let not_found = |why: &str| Error::NotFound {
        program: "redis-server".to_owned(),
        hint: format!(
            "{why}install Redis {OLDEST_REDIS} or newer, or Valkey (Debian: apt-get install redis-server), or set {}",
            keys::REDIS_SERVER
        ),
    };
    let program = match env::get(keys::REDIS_SERVER).map(PathBuf::from) {
        Some(given) if is_program(&given) => given,
        Some(_) => return Err(points_nowhere(keys::REDIS_SERVER)),
        None => on_path()
            .find(|path| is_program(path))
            .ok_or_else(|| not_found(""))?,
    };
    let banner = process::run(Command::new(&program).arg("--version"), Duration::from_secs(5))?;
    match major_version(&banner) {
        Some(major) if major >= OLDEST_REDIS => Ok(program),
        _ => Err(not_found(&format!(
            "{} says `{}`; ",
            program.display(),
            banner.trim()
        ))),
    }
}

/// `pgbouncer`: `$PGBOUNCER`, else on `PATH`, else where Debian puts it, which is not on everybody's `PATH`.
///
/// # Errors
///
/// [`Error::NotFound`] with what to install; [`Error::State`] when `$PGBOUNCER` is set and is no program.
pub fn pgbouncer() -> Result<PathBuf> {
    if let Some(given) = env::get(keys::PGBOUNCER).map(PathBuf::from) {
        return Some(given)
            .filter(|path| is_program(path))
            .ok_or_else(|| points_nowhere(keys::PGBOUNCER));
    }
    let folders = env::path_folders()
        .into_iter()
        .chain([PathBuf::from("/usr/sbin")]);
    let mut places = folders.map(|folder| folder.join("pgbouncer"));
    places
        .find(|path| is_program(path))
        .ok_or_else(|| Error::NotFound {
            program: "pgbouncer".to_owned(),
            hint: format!(
                "install PgBouncer (Debian: apt-get install pgbouncer), or set {}",
                keys::PGBOUNCER
            ),
        })
}

fn points_nowhere(key: &str) -> Error {
    Error::State(format!("{key} is set, and there is no such program"))
}

/// `<root>/<version>/bin` for each version, newest first.
fn versioned(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = root.read_dir() else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(version, _)| *version >= OLDEST_POSTGRES)
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

/// The number after `v=` in `Redis server v=7.0.15 sha=…`.
fn major_version(banner: &str) -> Option<u32> {
    let (_, version) = banner.split_once("v=")?;
    version.split('.').next()?.parse().ok()
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
