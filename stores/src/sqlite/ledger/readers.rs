//! Connections that read beside the writer: in WAL mode they never wait for a commit.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metering::Unavailable;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::row::unavailable;
use crate::sqlite::database::{Database, OpenError};

/// Readers at once. More only wait for the same two cores; each has a page cache of 2 MB.
const READERS_MAX: usize = 6;

/// A pool of reading connections to one file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Readers(Arc<Pool>);

struct Pool {
    database: Database,
    path: PathBuf,
    idle: Mutex<Idle>,
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Connection>,
    /// Grows when the file is made anew.
    epoch: u64,
}

impl Readers {
    /// Opens connections as they are needed.
    pub(super) fn new(database: Database, path: &Path) -> Self {
        Self(Arc::new(Pool {
            database,
            path: path.to_owned(),
            idle: Mutex::new(Idle::default()),
            permits: Arc::new(Semaphore::new(READERS_MAX)),
        }))
    }

    /// Runs `work` in one read transaction, away from the async workers.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.map_err(unavailable)?;
        let readers = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let read = readers.read_here(work);
            drop(permit);
            read
        });
        reading.await.map_err(unavailable)?
    }

    /// The same on this thread, which may block.
    pub(super) fn read_here<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        self.try_read(work).map_err(unavailable)
    }

    /// The same with SQLite's own error.
    pub(super) fn try_read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let (idle, epoch) = {
            let mut idle = self.idle();
            (idle.connections.pop(), idle.epoch)
        };
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.0.database.open_reader(&self.0.path).map_err(sqlite_error)?,
        };
        let snapshot = connection.transaction()?;
        // A connection that failed is closed: the next one starts afresh.
        let read = work(&snapshot)?;
        snapshot.finish()?;
        let mut idle = self.idle();
        if idle.epoch == epoch {
            idle.connections.push(connection);
        }
        Ok(read)
    }

    /// Which file they read.
    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Closes all connections, those at work when they are done: the file is made anew.
    pub(super) fn close_idle(&self) {
        let mut idle = self.idle();
        idle.epoch += 1;
        idle.connections.clear();
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader never looks at the schema number, so SQLite's error is the only one.
pub(super) fn sqlite_error(error: OpenError) -> rusqlite::Error {
    match error {
        OpenError::Sqlite { source, .. } | OpenError::Damaged { source, .. } => source,
        OpenError::Newer { .. } => rusqlite::Error::InvalidQuery,
    }
}
