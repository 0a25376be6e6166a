//! Where the servers' programs are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::env::{self, keys};
use crate::{Error, Result, process};

/// Debian and its children keep Postgres' server programs here, out of `PATH`.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";
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
/// [`Error::NotFound`] with what to install.
pub fn postgres() -> Result<PathBuf> {
    let given = env::get(keys::PG_BIN).map(PathBuf::from);
    let asked = || {
        let answer = process::run(Command::new("pg_config").arg("--bindir"), Duration::from_secs(5)).ok()?;
        Some(PathBuf::from(answer.trim()))
    };
    let places = match given {
        Some(folder) => vec![folder],
        None => versioned(Path::new(DEBIAN_POSTGRES))
            .into_iter()
            .chain(asked())
            .chain(env::path_folders())
            .collect(),
    };
    places
        .into_iter()
        .find(|folder| ["initdb", "postgres", "pg_basebackup"].iter().all(|program| is_program(&folder.join(program))))
        .ok_or_else(|| Error::NotFound {
            program: "postgres".to_owned(),
            hint: format!(
                "install Postgres {OLDEST_POSTGRES} or newer (Debian: apt-get install postgresql) or set {} to its bin folder",
                keys::PG_BIN
            ),
        })
}

/// `redis-server` or `valkey-server`: `$REDIS_SERVER`, else the first of them on `PATH`.
///
/// # Errors
///
/// [`Error::NotFound`] with what to install, also when it is older than 7.0.
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
        Some(given) => Some(given).filter(|path| is_program(path)),
        None => on_path().find(|path| is_program(path)),
    };
    let program = program.ok_or_else(|| not_found(""))?;
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
