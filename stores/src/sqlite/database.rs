//! Opens a SQLite file: settings, and the migrations that bring it up to date.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Why a file was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file was written by a newer program.
    #[error(
        "{path} has schema {found}, this program knows up to {known}: it was written by a newer \
         version; start that one"
    )]
    Newer {
        /// Which file.
        path: String,
        /// Its schema number.
        found: usize,
        /// The newest that this program knows.
        known: usize,
    },
    /// The content of the file is at fault: to try again does not help.
    #[error("{path} is damaged; {}", remedy(path))]
    Damaged {
        /// Which file.
        path: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// SQLite said no: locked, no space, no permission.
    #[error("{path} cannot be opened")]
    Sqlite {
        /// Which file.
        path: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What SQLite said of a file.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.display().to_string();
        if is_damage(&source) {
            return Self::Damaged { path, source };
        }
        Self::Sqlite { path, source }
    }
}

/// Whether the content of a file is at fault.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// What an operator can do about a damaged file, with the server stopped.
fn remedy(path: &str) -> &'static str {
    match Path::new(path).file_name().and_then(|name| name.to_str()) {
        Some("log.db") => {
            "restore the whole directory from a backup: offsets of another log do not fit \
             ledger.db. Events that were acknowledged since the backup can be sent again with \
             their ids"
        }
        Some("ledger.db") => {
            "move ledger.db, ledger.db-wal and ledger.db-shm away and put the ledger.db of a \
             backup in their place: what came since is counted again from log.db, as far back as \
             it goes (the log retention). Without a backup it is made again from log.db alone \
             only if that still holds the first record of all; erasures of metadata must then be \
             asked for again"
        }
        Some("accounts.db") => {
            "move accounts.db, accounts.db-wal and accounts.db-shm away and put the accounts.db \
             of a backup in their place: users, keys and changes since are lost"
        }
        Some("ids.db") => "move ids.db, ids.db-wal and ids.db-shm away: it is made again",
        _ => "restore it from a backup",
    }
}

/// How much a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Loss of power: fsync at every commit. For everything that is acknowledged.
    Full,
    /// kill -9; after a loss of power the last commits may be missing, never half there. For what
    /// can be made again from a file of `Full` durability.
    Rebuildable,
}

/// One SQLite file with its schema: `migrations` are applied in order, each once, and counted in
/// `user_version`.
#[derive(Clone, Copy, Debug)]
pub struct Database {
    pub(super) migrations: &'static [&'static str],
    pub(super) durability: Durability,
    /// How long a statement waits for another process's lock.
    pub(super) busy_timeout: Duration,
}

impl Database {
    /// Opens the file for writing; makes it when it is missing.
    pub(super) fn open(&self, path: &Path) -> Result<Connection, OpenError> {
        let failed = |source| OpenError::sqlite(path, source);
        let mut connection = Connection::open(path).map_err(failed)?;
        let found = self.prepare(&mut connection).map_err(failed)?;
        if found > self.migrations.len() {
            let path = path.display().to_string();
            return Err(OpenError::Newer { path, found, known: self.migrations.len() });
        }
        Ok(connection)
    }

    /// Opens the file for reading beside a writer. It must have been opened for writing before.
    pub(super) fn open_reader(&self, path: &Path) -> Result<Connection, OpenError> {
        let failed = |source| OpenError::sqlite(path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        self.connect(&connection).map_err(failed)?;
        Ok(connection)
    }

    /// What reading and writing connections have in common.
    fn connect(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.busy_timeout(self.busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Plans do not depend on values: else a cached statement is prepared again at each new one.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(())
    }

    /// Answers the schema number that stands in the file; changes nothing when it is too new.
    fn prepare(&self, connection: &mut Connection) -> rusqlite::Result<usize> {
        self.connect(connection)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let version = |connection: &Connection| {
            let version =
                connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
            version.map(|version| usize::try_from(version).unwrap_or(usize::MAX))
        };
        let found = version(connection)?;
        if found > self.migrations.len() {
            return Ok(found);
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        let synchronous = match self.durability {
            Durability::Full => "full",
            Durability::Rebuildable => "normal",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        if found < self.migrations.len() {
            // Another process may be migrating: the version is read again under the write lock.
            let migration =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for (number, statements) in (1..).zip(self.migrations).skip(version(&migration)?) {
                migration.execute_batch(statements)?;
                migration.pragma_update(None, "user_version", number)?;
            }
            migration.commit()?;
        }
        version(connection)
    }
}
