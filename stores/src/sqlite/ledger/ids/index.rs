//! The index file: ids below `indexed_to` of one ledger.

use std::path::Path;
use std::time::Duration;

use metering::usage::{ContentDigest, IdDigest, KnownEvent, Offset, Partition};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::sqlite::database::{Database, Durability, OpenError};
use crate::sqlite::ledger::row::{bytes, count, stored};
use crate::sqlite::ledger::writer::read_cursor;

pub(super) const DATABASE: Database = Database {
    migrations: &[include_str!("../../../../../migrations/sqlite/ids/0001_ids.sql")],
    durability: Durability::Rebuildable,
    busy_timeout: Duration::from_secs(5),
};

/// The page cache, in KiB: inner pages and the leaves under a sorted chunk.
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
) -> rusqlite::Result<Vec<(IdDigest, KnownEvent)>> {
    let select = "SELECT id_digest, offset, content_digest FROM events \
                  WHERE offset >= ? AND offset < ?";
    ledger
        .prepare_cached(select)?
        .query_map([stored(from.number())?, stored(end.number())?], |row| {
            Ok((IdDigest(bytes(row, 0)?), event(row, 1)?))
        })?
        .collect()
}

/// Looks up ids; answers those found, with their places.
pub(super) fn find(
    open: &Connection,
    asked: &[(usize, IdDigest)],
) -> rusqlite::Result<Vec<(usize, KnownEvent)>> {
    let mut select = open.prepare_cached("SELECT offset, content FROM ids WHERE digest = ?")?;
    let mut found = Vec::new();
    for (place, id) in asked {
        if let Some(event) = select.query_row([id.0], |row| event(row, 0)).optional()? {
            found.push((*place, event));
        }
    }
    Ok(found)
}

fn event(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<KnownEvent> {
    let offset = Offset::new(count(row, column)?);
    Ok(KnownEvent { offset, content: ContentDigest(bytes(row, column + 1)?) })
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
        self.connection.execute(set, params![ledger.identity]).map(drop)
    }

    fn forget_from(&mut self, position: Offset) -> rusqlite::Result<()> {
        let open = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let position_stored = stored(position.number())?;
        let gone = open.execute("DELETE FROM ids WHERE offset >= ?", params![position_stored])?;
        let ids = self.ids.saturating_sub(u64::try_from(gone).unwrap_or(0));
        let set = "UPDATE progress SET indexed_to = ?, ids = ?";
        open.execute(set, params![position_stored, stored(ids)?])?;
        open.commit()?;
        (self.indexed_to, self.ids) = (position, ids);
        Ok(())
    }

    /// Adds ids (sorted by digest) and notes that everything below `end` is indexed.
    pub(super) fn add(
        &mut self,
        sorted: &[(IdDigest, KnownEvent)],
        end: Offset,
    ) -> rusqlite::Result<()> {
        let open = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut insert = open.prepare_cached("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)")?;
        let mut added = 0;
        for (id, event) in sorted {
            let row = params![id.0, stored(event.offset.number())?, event.content.0];
            added += u64::try_from(insert.execute(row)?).unwrap_or(0);
        }
        drop(insert);
        let ids = self.ids.saturating_add(added);
        let set = "UPDATE progress SET indexed_to = ?, ids = ?";
        open.execute(set, params![stored(end.number())?, stored(ids)?])?;
        open.commit()?;
        (self.indexed_to, self.ids) = (end, ids);
        Ok(())
    }

    /// Passes every id to `visit`, in order, until it answers `false`.
    pub(super) fn scan(&self, mut visit: impl FnMut(&IdDigest) -> bool) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare("SELECT digest FROM ids")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()?
            && visit(&IdDigest(bytes(row, 0)?))
        {}
        Ok(())
    }
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
