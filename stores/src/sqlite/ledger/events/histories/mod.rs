//! Which events are whose, in the order in which they occurred: sorted runs of entries.
//!
//! What a flush counted becomes a run, and runs are merged as [`tiers`](super::super::tiers) says. In a
//! B-tree of its own each entry would stand in another page, for every user's newest entries lie
//! elsewhere; in a run it is written beside those of its flush. All of it happens in the flush's own
//! transaction.

mod merging;
mod stretch;
#[cfg(test)]
mod tests;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Position;
use crate::sqlite::ledger::row::stored;
pub(super) use merging::merge_some;

/// Where an event of a user's history stands. Entries are ordered as histories are, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entry {
    /// The user's number.
    pub(super) user: i64,
    /// In ms since 1970.
    pub(super) occurred_at: i64,
    /// In the log; breaks ties.
    pub(super) offset: i64,
    /// The block that holds the event.
    pub(super) block: i64,
    /// The model's number.
    pub(super) model: i64,
    /// The request type's number.
    pub(super) request_type: u8,
}

impl Entry {
    pub(super) const fn position(&self) -> Position {
        (self.occurred_at, self.offset)
    }
}

/// Makes a run of entries, which are sorted.
pub(super) fn add(open: &Connection, sorted: &[Entry]) -> rusqlite::Result<()> {
    if sorted.is_empty() {
        return Ok(());
    }
    let run = merging::make_run(open, sorted.len() as u64)?;
    append(open, run, sorted)
}

/// Adds sorted entries to a run that has none of their places yet.
fn append(open: &Connection, run: u64, sorted: &[Entry]) -> rusqlite::Result<()> {
    let run = stored(run)?;
    let mut insert = open.prepare_cached("INSERT INTO stretches VALUES (?, ?, ?, ?, ?)")?;
    let mut bytes = Vec::new();
    for of_user in sorted.chunk_by(|one, next| one.user == next.user) {
        for piece in of_user.chunks(stretch::ENTRIES_MAX) {
            stretch::encode(piece, &mut bytes);
            let first = piece[0];
            insert.execute(params![run, first.user, first.occurred_at, first.offset, bytes])?;
        }
    }
    Ok(())
}

/// Passes every entry to `visit`, in no order.
pub(super) fn each(open: &Connection, mut visit: impl FnMut(&Entry)) -> rusqlite::Result<()> {
    let mut select = open.prepare("SELECT user, occurred_at, offset, entries FROM stretches")?;
    let (mut rows, mut entries) = (select.query([])?, Vec::new());
    while let Some(row) = rows.next()? {
        let first = (row.get(1)?, row.get(2)?);
        stretch::decode(row.get(0)?, first, row.get_ref(3)?.as_blob()?, &mut entries)?;
        entries.drain(..).for_each(|entry| visit(&entry));
    }
    Ok(())
}

/// One user's entries before a position, newest first. `open` must be in a transaction: merges move
/// entries from run to run.
pub(super) fn newest_first(
    open: &Connection,
    user: i64,
    before: Position,
) -> rusqlite::Result<NewestFirst<'_>> {
    let runs = open
        .prepare_cached("SELECT number FROM runs")?
        .query_map([], |row| {
            Ok(OfRun { run: row.get(0)?, entries: Vec::new(), below: Some(before) })
        })?
        .collect::<Result<_, _>>()?;
    Ok(NewestFirst { open, user, before, runs })
}

/// See [`newest_first`].
pub(super) struct NewestFirst<'c> {
    open: &'c Connection,
    user: i64,
    before: Position,
    runs: Vec<OfRun>,
}

/// What a run has of the user.
struct OfRun {
    run: i64,
    /// Those read and not yet taken, oldest first.
    entries: Vec<Entry>,
    /// Where the next stretch begins before; `None`: there is none.
    below: Option<Position>,
}

impl OfRun {
    /// Where nothing is left to be taken, reads the next older stretch that has an entry before
    /// `before`.
    fn read_on(&mut self, open: &Connection, user: i64, before: Position) -> rusqlite::Result<()> {
        while self.entries.is_empty()
            && let Some((time, offset)) = self.below
        {
            let entries = &mut self.entries;
            let found = open
                .prepare_cached(include_str!("../../sql/older_stretch.sql"))?
                .query_row(params![self.run, user, time, offset], |row| {
                    let first = (row.get(0)?, row.get(1)?);
                    stretch::decode(user, first, row.get_ref(2)?.as_blob()?, entries)?;
                    Ok(first)
                });
            self.below = found.optional()?;
            entries.retain(|entry| entry.position() < before);
        }
        Ok(())
    }
}

impl Iterator for NewestFirst<'_> {
    type Item = rusqlite::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        for run in &mut self.runs {
            if let Err(error) = run.read_on(self.open, self.user, self.before) {
                return Some(Err(error));
            }
        }
        let next = self.runs.iter_mut().max_by_key(|run| run.entries.last().copied())?;
        next.entries.pop().map(Ok)
    }
}
