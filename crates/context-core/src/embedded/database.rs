//! Connections to the data file, and what its errors mean.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::rows::int;
use crate::error::{Error, Result};
use crate::settings::{EmbeddedSettings, Synchronous};

/// Written into the file's header, so that no other program's database is mistaken for ours: "ckep".
const APPLICATION_ID: i32 = 0x636b_6570;
/// One b-tree page. Items of about a kilobyte pack well at 8 KiB.
const PAGE_BYTES: u64 = 8192;
/// Pages of the write-ahead log after which a commit also moves them into the file.
const CHECKPOINT_PAGES: u32 = 4096;
/// When to try again after the file was held by another process.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

mod migrations {
    refinery::embed_migrations!("migrations/embedded");
}

/// The data file and how to open it.
#[derive(Clone, Debug)]
pub(super) struct Database {
    path: PathBuf,
    synchronous: Synchronous,
    busy_timeout: Duration,
    pages_max: u64,
}

impl Database {
    /// Creates the folder and the file if they are not there, and brings the schema up to date.
    pub(super) fn prepare(settings: &EmbeddedSettings) -> Result<Self> {
        let folder = &settings.path;
        fs::create_dir_all(folder).map_err(|error| cannot("create the data folder", folder, &error))?;
        let database = Self {
            path: folder.join("contextkeep.db"),
            synchronous: settings.synchronous,
            busy_timeout: settings.busy_timeout,
            pages_max: settings.max_size.as_u64().div_ceil(PAGE_BYTES),
        };
        // Two processes that start together must not migrate at the same time.
        let lock_path = folder.join("migrate.lock");
        let lock = File::create(&lock_path).map_err(|error| cannot("create", &lock_path, &error))?;
        lock.lock().map_err(|error| cannot("lock", &lock_path, &error))?;
        database
            .migrate()
            .map_err(|error| database.name_the_file(error))?;
        Ok(database)
    }

    fn migrate(&self) -> Result<()> {
        let mut connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            connection.pragma_update(None, "page_size", int(PAGE_BYTES))?;
            connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        } else if application != APPLICATION_ID {
            return Err(Error::StorageDamaged {
                detail: "it is an SQLite database, but not one of Contextkeep's".into(),
            });
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        let runner = migrations::migrations::runner();
        if let Some(applied) = newest_applied(&connection)?
            && runner
                .get_migrations()
                .iter()
                .all(|migration| i64::from(migration.version()) < applied)
        {
            return Err(Error::Unavailable {
                detail: format!(
                    "its schema is at version {applied}, which a newer Contextkeep wrote; use that version, or \
                     export with it and import here"
                ),
                retry_after: RETRY_AFTER,
            });
        }
        runner
            .run(&mut connection)
            .map_err(|error| Error::internal(format!("migrating the data file: {error}")))?;
        Ok(())
    }

    pub(super) fn schema_version(&self) -> Result<i64> {
        Ok(newest_applied(&self.reader()?)?.unwrap_or(0))
    }

    /// The connection that writes.
    pub(super) fn writer(&self) -> Result<Connection> {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(
            None,
            "synchronous",
            match self.synchronous {
                Synchronous::Full => "full",
                Synchronous::Normal => "normal",
            },
        )?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        if self.pages_max > 0 {
            connection.pragma_update(None, "max_page_count", int(self.pages_max))?;
        }
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    /// A connection that reads.
    pub(super) fn reader(&self) -> Result<Connection> {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| self.name_the_file(error.into()))?;
        connection.busy_timeout(self.busy_timeout)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        Ok(connection)
    }

    /// Puts the file's name into an error that was found while opening it.
    pub(super) fn name_the_file(&self, error: Error) -> Error {
        let path = self.path.display();
        match error {
            Error::StorageDamaged { detail } => Error::StorageDamaged {
                detail: format!(
                    "{path}: {detail}; keep a copy, then move it away to start empty, or restore a backup"
                ),
            },
            Error::Unavailable { detail, retry_after } => Error::Unavailable {
                detail: format!("{path}: {detail}"),
                retry_after,
            },
            Error::StorageFull { detail } => Error::StorageFull {
                detail: format!("{path}: {detail}"),
            },
            other => other,
        }
    }
}

/// What is wrong with the file, by `SQLite`'s own check and ours.
pub(super) fn verify(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA quick_check(10)")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut problems: Vec<String> = rows.collect::<rusqlite::Result<_>>()?;
    problems.retain(|problem| problem != "ok");
    let headless: i64 = connection.query_row(
        "SELECT count(*) FROM contexts c LEFT JOIN heads h USING (ctx_no) WHERE h.ctx_no IS NULL",
        [],
        |row| row.get(0),
    )?;
    if headless > 0 {
        problems.push(format!("{headless} contexts have no head"));
    }
    Ok(problems)
}

fn newest_applied(connection: &Connection) -> Result<Option<i64>> {
    let exists: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history')",
        [],
        |row| row.get(0),
    )?;
    if !exists {
        return Ok(None);
    }
    Ok(
        connection.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| {
            row.get(0)
        })?,
    )
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Unavailable {
        detail: format!(
            "cannot {what} {}: {error}; set context_manager.embedded.path to a folder that can be written",
            path.display()
        ),
        retry_after: RETRY_AFTER,
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::StorageFull { detail },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::StorageDamaged { detail },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Unavailable {
                detail: format!("another process holds the data file ({detail})"),
                retry_after: RETRY_AFTER,
            },
            Some(ErrorCode::OperationInterrupted) => Self::Unavailable {
                detail: "the query took too long; ask for rarer words or one context".into(),
                retry_after: RETRY_AFTER,
            },
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::PermissionDenied,
            ) => Self::Unavailable {
                detail,
                retry_after: RETRY_AFTER,
            },
            _ => Self::internal(detail),
        }
    }
}
