//! The index file: ids below `indexed_to` of one ledger.

use std::path::Path;
use std::time::Duration;

use metering::usage::{IdDigest, KnownEvent, Offset, Partition};
use rusqlite::{Connection, TransactionBehavior};

use super::runs::{self, Entry, Run};
use crate::sqlite::database::{Database, Durability, OpenError};
use crate::sqlite::ledger::events;
use crate::sqlite::ledger::row::{count, stored};
use crate::sqlite::ledger::writer::read_cursor;

pub(super) const DATABASE: Database = Database {
    migrations: &[
        include_str!("../../../../../migrations/sqlite/ids/0001_ids.sql"),
        include_str!("../../../../../migrations/sqlite/ids/0002_runs.sql"),
    ],
    durability: Durability::Rebuildable,
    busy_timeout: Duration::from_secs(5),
};

/// The page cache, in KiB: a merge's inner pages, and the leaves that a step of it leaves behind.
const CACHE_KIB: i64 = 16 * 1024;

/// Pages in the write-ahead log before it is moved into the file: a chunk's worth, so that the
/// pages of one chunk are written there together.
const CHECKPOINT_PAGES: i64 = 16 * 1024;

/// Which ledger, and how far it is counted.
#[derive(Clone)]
pub(super) struct LedgerStanding {
    pub(super) identity: Vec<u8>,
    pub(super) position: Offset,
}

/// Reads it from the ledger.
pub(super) fn ledger_standing(ledger: &Connection) -> rusqlite::Result<LedgerStanding> {
    let identity = ledger.query_row("SELECT identity FROM ledger", [], |row| row.get(0))?;
    Ok(LedgerStanding { identity, position: read_cursor(ledger, Partition::SINGLE)?.position })
}

/// The ids that the ledger counted in `[from, end)`.
pub(super) fn ids_between(
    ledger: &Connection,
    from: Offset,
    end: Offset,
) -> rusqlite::Result<Vec<Entry>> {
    let mut ids = Vec::new();
    events::between(ledger, from, end, |counted| {
        let content = counted.admitted.content_digest;
        ids.push((counted.admitted.id_digest, KnownEvent { offset: counted.offset, content }));
        Ok(())
    })?;
    Ok(ids)
}

/// Looks up ids (sorted, each with its place) in a read transaction: merges move ids from run to run.
/// Answers those found.
pub(super) fn find(
    open: &Connection,
    asked: &[(usize, IdDigest)],
) -> rusqlite::Result<Vec<(usize, KnownEvent)>> {
    let mut missing = asked.to_vec();
    let mut found = Vec::new();
    for run in Run::all(open)? {
        let mut elsewhere = Vec::with_capacity(missing.len());
        for (place, id) in missing {
            match run.find(open, &id)? {
                Some(event) => found.push((place, event)),
                None => elsewhere.push((place, id)),
            }
        }
        missing = elsewhere;
    }
    Ok(found)
}

/// The writing side of the index file.
pub(super) struct Index {
    connection: Connection,
    /// Everything counted below is in the index.
    pub(super) indexed_to: Offset,
    /// How many ids it has.
    pub(super) ids: u64,
}

impl Index {
    /// Opens the index of this ledger; one that is damaged or of another ledger is made anew.
    pub(super) fn open(path: &Path, ledger: &LedgerStanding) -> Result<Self, OpenError> {
        match Self::open_existing(path, ledger) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => tracing::info!("the index of ids belongs to another ledger"),
            Err(OpenError::Damaged { source, .. }) => {
                tracing::warn!(error = %source, "the index of ids is damaged");
            }
            Err(error) => return Err(error),
        }
        remove(path);
        let sqlite = |source| OpenError::sqlite(path, source);
        let connection = DATABASE.open(path)?;
        let index = Self::of(connection).map_err(sqlite)?;
        index.adopt(ledger).map_err(sqlite)?;
        Ok(index)
    }

    fn open_existing(path: &Path, ledger: &LedgerStanding) -> Result<Option<Self>, OpenError> {
        let sqlite = |source| OpenError::sqlite(path, source);
        let connection = DATABASE.open(path)?;
        let mut index = Self::of(connection).map_err(sqlite)?;
        let owner: Vec<u8> = index
            .connection
            .query_row("SELECT ledger FROM progress", [], |row| row.get(0))
            .map_err(sqlite)?;
        if owner.is_empty() {
            index.adopt(ledger).map_err(sqlite)?;
        } else if owner != ledger.identity {
            return Ok(None);
        }
        // After a loss of power the ledger may stand below what was indexed: it counts these
        // events again, so they must not be known.
        if index.indexed_to > ledger.position {
            index.forget_from(ledger.position).map_err(sqlite)?;
        }
        Ok(Some(index))
    }

    fn of(connection: Connection) -> rusqlite::Result<Self> {
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        let (indexed_to, ids) =
            connection.query_row("SELECT indexed_to, ids FROM progress", [], |row| {
                Ok((Offset::new(count(row, 0)?), count(row, 1)?))
            })?;
        Ok(Self { connection, indexed_to, ids })
    }

    fn adopt(&self, ledger: &LedgerStanding) -> rusqlite::Result<()> {
        let set = "UPDATE progress SET ledger = ?, indexed_to = 0, ids = 0";
        self.connection.execute(set, [&ledger.identity]).map(drop)
    }

    fn forget_from(&mut self, position: Offset) -> rusqlite::Result<()> {
        let open = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids = self.ids.saturating_sub(runs::forget_from(&open, position)?);
        note_progress(&open, position, ids)?;
        open.commit()?;
        (self.indexed_to, self.ids) = (position, ids);
        Ok(())
    }

    /// Adds ids (sorted by digest) and notes that everything below `end` is indexed.
    pub(super) fn add(&mut self, sorted: &[Entry], end: Offset) -> rusqlite::Result<()> {
        let open = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        runs::add(&open, sorted)?;
        let ids = self.ids.saturating_add(u64::try_from(sorted.len()).unwrap_or(u64::MAX));
        note_progress(&open, end, ids)?;
        open.commit()?;
        (self.indexed_to, self.ids) = (end, ids);
        Ok(())
    }

    /// Goes on to merge what was added; `false` when there is nothing left to merge.
    pub(super) fn merge_some(&mut self) -> rusqlite::Result<bool> {
        let open = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let merged = runs::merge_some(&open)?;
        open.commit()?;
        Ok(merged)
    }

    /// Passes every id to `visit`, until it answers `false`.
    pub(super) fn scan(&self, visit: impl FnMut(&IdDigest) -> bool) -> rusqlite::Result<()> {
        runs::scan(&self.connection, visit)
    }
}

fn note_progress(open: &Connection, indexed_to: Offset, ids: u64) -> rusqlite::Result<()> {
    let set = "UPDATE progress SET indexed_to = ?, ids = ?";
    open.execute(set, [stored(indexed_to.number())?, stored(ids)?]).map(drop)
}

/// Removes the file and what SQLite keeps beside it.
pub(super) fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the index of ids cannot be removed");
        }
    }
}
