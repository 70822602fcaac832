//! SQLite files as such: copies and checks of what another process has open.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::OpenError;

/// How long a locked file is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Copies a file as it stands at one instant, while others write to it; they are not held up.
///
/// # Errors
/// [`OpenError`] names the file that cannot be read or written. What there is of the copy then is
/// of no use.
pub fn copy_online(from: &Path, to: &Path) -> Result<(), OpenError> {
    let source = open_for_reading(from)?;
    let mut target = Connection::open(to).map_err(|error| OpenError::sqlite(to, error))?;
    let copied = Backup::new(&source, &mut target).and_then(|backup| {
        // All pages in one step: one snapshot, so no writer makes it begin again.
        backup.step(-1).map(drop)
    });
    copied.map_err(|error| OpenError::sqlite(to, error))?;
    // A file of its own, without a journal beside it.
    target
        .pragma_update(None, "journal_mode", "delete")
        .map_err(|error| OpenError::sqlite(to, error))
}

/// What [`inspect`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The number of the schema.
    pub schema: u32,
    /// What SQLite found wrong with the file; `None` when nothing.
    pub damage: Option<String>,
}

/// Reads a whole file and checks its structure, while others may write to it.
///
/// # Errors
/// [`OpenError`] when it cannot be read at all.
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    let connection = open_for_reading(path)?;
    let read = || {
        let schema = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok(Inspection { schema, damage: (said != "ok").then_some(said) })
    };
    read().map_err(|error| OpenError::sqlite(path, error))
}

fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(PATIENCE)?;
        Ok(connection)
    });
    opened.map_err(|error| OpenError::sqlite(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_taken_beside_a_writer_and_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a.db"), directory.path().join("b.db"));
        let writer = Connection::open(&from).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1); BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").unwrap();
        copy_online(&from, &to).unwrap();
        writer.execute_batch("COMMIT").unwrap();
        let copy = Connection::open(&to).unwrap();
        let rows: u32 = copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1, "what was not committed is not in the copy");
        assert_eq!(inspect(&to).unwrap(), Inspection { schema: 0, damage: None });
    }

    #[test]
    fn a_file_that_is_no_database_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 5000]).unwrap();
        assert!(inspect(file.path()).is_err());
        assert!(inspect(&file.path().join("missing")).is_err());
    }
}
