//! Whether histories have exactly the events that the blocks hold, and how they are made again.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use metering::usage::Difference;
use rusqlite::Connection;

use super::histories::{self, Entry};
use super::{Numbers, each, entry_of};

/// Entries that become one run where histories are made again: 5 MB of memory.
const RUN_ENTRIES: usize = 100_000;

/// What entries add up to, in any order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    entries: u64,
    checksum: u64,
}

impl Tally {
    fn add(&mut self, entry: &Entry) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(entry);
        self.entries += 1;
        self.checksum = self.checksum.wrapping_add(hash);
    }
}

/// How all histories together differ from the events, if they do.
pub(in crate::sqlite::ledger) fn compare_histories(
    open: &Connection,
) -> rusqlite::Result<Option<Difference>> {
    let (mut expected, mut found) = (Tally::default(), Tally::default());
    each_entry(open, |entry| {
        expected.add(&entry);
        Ok(())
    })?;
    histories::each(open, |entry| found.add(entry))?;
    let (name, expected, found) = if expected.entries != found.entries {
        ("entries", expected.entries, found.entries)
    } else if expected.checksum != found.checksum {
        ("checksum of the entries", expected.checksum, found.checksum)
    } else {
        return Ok(None);
    };
    let subject = format!("users' histories: {name}");
    Ok(Some(Difference { subject, expected: expected.into(), found: found.into() }))
}

/// Makes all histories again, in the caller's transaction.
pub(in crate::sqlite::ledger) fn make_histories(open: &Connection) -> rusqlite::Result<()> {
    open.execute_batch("DELETE FROM stretches; DELETE FROM runs")?;
    let mut entries = Vec::with_capacity(RUN_ENTRIES);
    each_entry(open, |entry| {
        entries.push(entry);
        if entries.len() < RUN_ENTRIES { Ok(()) } else { add(open, &mut entries) }
    })?;
    add(open, &mut entries)
}

fn add(open: &Connection, entries: &mut Vec<Entry>) -> rusqlite::Result<()> {
    entries.sort_unstable();
    histories::add(open, entries)?;
    histories::merge_some(open, entries.len())?;
    entries.clear();
    Ok(())
}

/// Passes the entry that each stored event should have to `visit`.
fn each_entry(
    open: &Connection,
    mut visit: impl FnMut(Entry) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut numbers = Numbers::default();
    each(open, "SELECT number, body FROM blocks", [], |block, counted| {
        numbers.trim();
        visit(Entry { block, ..entry_of(open, &mut numbers, &counted)? })
    })
}
