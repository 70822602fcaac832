//! Merges runs, some steps in each flush.

use rusqlite::{Connection, params};

use super::{Entry, append, stretch};
use crate::sqlite::ledger::events::coding::damaged;
use crate::sqlite::ledger::row::stored;
use crate::sqlite::ledger::tiers::{self, Merge};

/// Entries that a flush moves in each merge at least: small flushes finish small merges at once.
const MOVED_MIN: usize = 256;

/// Entries that are taken from each run at a time, give or take a stretch: 100 KB of memory.
const TAKEN_AT_ONCE: usize = 2048;

struct Run {
    number: u64,
    entries: u64,
    merging_into: Option<u64>,
}

impl tiers::Run for Run {
    fn number(&self) -> u64 {
        self.number
    }

    fn size(&self) -> u64 {
        self.entries
    }

    fn merging_into(&self) -> Option<u64> {
        self.merging_into
    }
}

impl Run {
    fn all(open: &Connection) -> rusqlite::Result<Vec<Self>> {
        open.prepare_cached("SELECT number, entries, merging_into FROM runs")?
            .query_map([], |row| {
                Ok(Self { number: row.get(0)?, entries: row.get(1)?, merging_into: row.get(2)? })
            })?
            .collect()
    }
}

/// Makes a run for so many entries; answers its number.
pub(super) fn make_run(open: &Connection, entries: u64) -> rusqlite::Result<u64> {
    open.prepare_cached("INSERT INTO runs (entries) VALUES (?) RETURNING number")?
        .query_row([stored(entries)?], |row| row.get(0))
}

/// Goes on with each merge that is due or under way, within the caller's transaction: at any time each
/// entry stands in one run.
///
/// `added` entries came since the last step. So many at least are moved by each merge, which therefore
/// ends before the next one of its size begins.
pub(in crate::sqlite::ledger::events) fn merge_some(
    open: &Connection,
    added: usize,
) -> rusqlite::Result<()> {
    tiers::begin_due(open, &Run::all(open)?, 1, |entries| make_run(open, entries))?;
    for merge in tiers::under_way(&Run::all(open)?) {
        let (least, mut moved, mut ended) = (added.max(MOVED_MIN), 0, false);
        while moved < least && !ended {
            let more;
            (more, ended) = step(open, &merge)?;
            if more == 0 && !ended {
                return Err(damaged("a history is out of order"));
            }
            moved += more;
        }
        if ended {
            tiers::end(open, &merge)?;
        }
    }
    Ok(())
}

/// Moves the first entries of the sources to the end of the target: answers how many, and whether that
/// was all.
fn step(open: &Connection, merge: &Merge<'_, Run>) -> rusqlite::Result<(usize, bool)> {
    let Merge { target, sources } = merge;
    let mut taken = Vec::with_capacity(sources.len());
    let mut end: Option<Key> = None;
    for source in sources {
        let (entries, next) = take_first(open, source.number)?;
        end = end.into_iter().chain(next).min();
        taken.push(entries);
    }
    // What a source still holds may come before what was taken from the others: that goes back.
    let mut moved = Vec::new();
    for (source, mut entries) in sources.iter().zip(taken) {
        let kept = entries.partition_point(|entry| end.is_none_or(|end| key(entry) < end));
        append(open, source.number, &entries[kept..])?;
        entries.truncate(kept);
        moved.append(&mut entries);
    }
    moved.sort_unstable();
    append(open, target.number, &moved)?;
    Ok((moved.len(), end.is_none()))
}

/// The primary key of a stretch, but for its run.
type Key = (i64, i64, i64);

const fn key(entry: &Entry) -> Key {
    (entry.user, entry.occurred_at, entry.offset)
}

/// Takes the first entries out of a run; answers where what is left begins.
fn take_first(open: &Connection, run: u64) -> rusqlite::Result<(Vec<Entry>, Option<Key>)> {
    let run = stored(run)?;
    let mut entries = Vec::with_capacity(TAKEN_AT_ONCE + stretch::ENTRIES_MAX);
    let mut next = None;
    let mut select = open.prepare_cached(
        "SELECT user, occurred_at, offset, entries FROM stretches WHERE run = ? \
         ORDER BY user, occurred_at, offset",
    )?;
    let mut rows = select.query([run])?;
    while let Some(row) = rows.next()? {
        let (user, occurred_at, offset) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if entries.len() >= TAKEN_AT_ONCE {
            next = Some((user, occurred_at, offset));
            break;
        }
        let bytes = row.get_ref(3)?.as_blob()?;
        stretch::decode(user, (occurred_at, offset), bytes, &mut entries)?;
    }
    drop(rows);
    match next {
        Some((user, occurred_at, offset)) => open
            .prepare_cached(
                "DELETE FROM stretches WHERE run = ? AND (user, occurred_at, offset) < (?, ?, ?)",
            )?
            .execute(params![run, user, occurred_at, offset])?,
        None => open.prepare_cached("DELETE FROM stretches WHERE run = ?")?.execute([run])?,
    };
    Ok((entries, next))
}
