//! Counted events: blocks that hold them, and histories that say which block holds whose.
//!
//! A flush's events stand together, those of a user beside each other, in blocks ([`block`]) that are
//! written once. Where a user's events are is in [`histories`].

mod audit;
mod block;
mod coding;
mod conversion;
mod histories;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use metering::usage::{CountedEvent, Offset};
use rusqlite::{Connection, params};

use super::erasure::Erased;
use super::numbers::Numbers;
use super::row::{foreign, stored, user_of};
pub(super) use audit::{compare_histories, make_histories};
use block::{Block, Packer, Unpacker};
pub(super) use conversion::convert;
use histories::{Entry, NewestFirst};

/// A place in a user's history: time, in ms, and offset.
pub(super) type Position = (i64, i64);

/// Writes events.
pub(super) struct Events {
    packer: Packer,
}

impl Events {
    pub(super) fn new() -> rusqlite::Result<Self> {
        Ok(Self { packer: Packer::new()? })
    }

    /// Stores what a flush, whose first record is at `flush`, has counted; without the metadata of
    /// erased users.
    pub(super) fn insert(
        &mut self,
        open: &Connection,
        numbers: &mut Numbers,
        erased: &mut Erased,
        (flush, counted): (Offset, &[CountedEvent]),
    ) -> rusqlite::Result<()> {
        let mut entries = Vec::with_capacity(counted.len());
        for (place, one) in counted.iter().enumerate() {
            // Until its block is known, the event's place stands there.
            let block = i64::try_from(place).map_err(foreign)?;
            entries.push(Entry { block, ..entry_of(open, numbers, one)? });
        }
        entries.sort_unstable();
        let mut writing = Writing::new(open, &mut self.packer, stored(flush.number())?);
        for entry in &mut entries {
            let mut one = Cow::Borrowed(&counted[usize::try_from(entry.block).map_err(foreign)?]);
            let event = &one.admitted.event;
            if event.metadata.is_some() && erased.contains(open, event.user_id)? {
                one.to_mut().admitted.event.metadata = None;
            }
            entry.block = writing.push(&one)?;
        }
        writing.write()?;
        histories::add(open, &entries)?;
        histories::merge_some(open, entries.len())
    }
}

fn entry_of(
    open: &Connection,
    numbers: &mut Numbers,
    counted: &CountedEvent,
) -> rusqlite::Result<Entry> {
    let event = &counted.admitted.event;
    Ok(Entry {
        user: numbers.user(open, event.user_id)?,
        occurred_at: event.occurred_at.as_millis(),
        offset: stored(counted.offset.number())?,
        block: 0,
        model: numbers.name(open, event.model.as_str())?,
        request_type: event.request_type.number(),
    })
}

/// The blocks of one flush.
struct Writing<'a> {
    open: &'a Connection,
    packer: &'a mut Packer,
    flush: i64,
    /// Of the block that is being filled.
    number: i64,
    /// The earliest and the latest time of what is in it.
    times: Option<(i64, i64)>,
}

impl<'a> Writing<'a> {
    fn new(open: &'a Connection, packer: &'a mut Packer, flush: i64) -> Self {
        packer.clear();
        Self { open, packer, flush, number: flush, times: None }
    }

    /// Adds an event; answers the number of the block that takes it.
    fn push(&mut self, counted: &CountedEvent) -> rusqlite::Result<i64> {
        if self.packer.is_full() {
            self.write()?;
        }
        self.packer.push(counted)?;
        let time = counted.admitted.event.occurred_at.as_millis();
        let (earliest, latest) = self.times.unwrap_or((time, time));
        self.times = Some((earliest.min(time), latest.max(time)));
        Ok(self.number)
    }

    /// Writes the block, if there is anything in it, and begins the next one.
    fn write(&mut self) -> rusqlite::Result<()> {
        let Some((earliest, latest)) = self.times.take() else { return Ok(()) };
        let row = params![self.number, self.flush, earliest, latest, self.packer.finish()?];
        self.open.prepare_cached("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)")?.execute(row)?;
        self.number += 1;
        Ok(())
    }
}

/// Passes every event to `visit`.
pub(super) fn all(
    open: &Connection,
    mut visit: impl FnMut(CountedEvent) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    each(open, "SELECT number, body FROM blocks", [], |_, counted| visit(counted))
}

/// Passes the events with offsets in `[from, end)` to `visit`.
pub(super) fn between(
    open: &Connection,
    from: Offset,
    end: Offset,
    mut visit: impl FnMut(CountedEvent) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let bounds = [stored(from.number())?, stored(end.number())?];
    each(open, include_str!("../sql/blocks_between.sql"), bounds, |_, counted| {
        let inside = from <= counted.offset && counted.offset < end;
        if inside { visit(counted) } else { Ok(()) }
    })
}

/// Passes the events that occurred in `[from, to)` ms to `visit`.
pub(super) fn occurred_in(
    open: &Connection,
    [from, to]: [i64; 2],
    mut visit: impl FnMut(CountedEvent) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let select = "SELECT number, body FROM blocks WHERE latest >= ? AND earliest < ?";
    each(open, select, [from, to], |_, counted| {
        let occurred_at = counted.admitted.event.occurred_at.as_millis();
        if (from..to).contains(&occurred_at) { visit(counted) } else { Ok(()) }
    })
}

/// Passes the events of selected blocks to `visit`, each with the number of its block.
fn each(
    open: &Connection,
    select: &str,
    bounds: impl rusqlite::Params,
    mut visit: impl FnMut(i64, CountedEvent) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut unpacker = Unpacker::new()?;
    let mut select = open.prepare_cached(select)?;
    let mut rows = select.query(bounds)?;
    while let Some(row) = rows.next()? {
        let (number, block) = (row.get(0)?, unpacker.unpack(row.get_ref(1)?.as_blob()?)?);
        unpacker.events(&block, |counted| visit(number, counted))?;
    }
    Ok(())
}

/// Which events of a user's history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The user's number.
    pub(super) user: i64,
    /// Only before this position.
    pub(super) before: Position,
    /// Only from this time on, in ms.
    pub(super) from: i64,
    /// Only of the model with this number.
    pub(super) model: Option<i64>,
    /// Only of the request type with this number.
    pub(super) request_type: Option<u8>,
}

/// A user's events, newest first. `open` must be in a transaction.
pub(super) fn history(open: &Connection, wanted: Wanted) -> rusqlite::Result<History<'_>> {
    let entries = histories::newest_first(open, wanted.user, wanted.before)?;
    Ok(History { open, wanted, entries, unpacker: Unpacker::new()?, last: None })
}

/// See [`history`].
pub(super) struct History<'c> {
    open: &'c Connection,
    wanted: Wanted,
    entries: NewestFirst<'c>,
    unpacker: Unpacker,
    /// The block read last: the next entry's event mostly stands in it too.
    last: Option<(i64, Block)>,
}

impl History<'_> {
    fn wants(&self, entry: &Entry) -> bool {
        self.wanted.model.is_none_or(|model| entry.model == model)
            && self.wanted.request_type.is_none_or(|kind| entry.request_type == kind)
    }

    fn event(&mut self, entry: &Entry) -> rusqlite::Result<CountedEvent> {
        let block = match self.last.take() {
            Some((number, block)) if number == entry.block => block,
            _ => read_block(self.open, entry.block, &mut self.unpacker)?,
        };
        let event = self.unpacker.event(&block, entry.offset);
        self.last = Some((entry.block, block));
        event
    }
}

impl Iterator for History<'_> {
    type Item = rusqlite::Result<CountedEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.entries.next()? {
                Ok(entry) if entry.occurred_at < self.wanted.from => return None,
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            if self.wants(&entry) {
                return Some(self.event(&entry));
            }
        }
    }
}

fn read_block(open: &Connection, number: i64, unpacker: &mut Unpacker) -> rusqlite::Result<Block> {
    open.prepare_cached("SELECT body FROM blocks WHERE number = ?")?
        .query_row([number], |row| unpacker.unpack(row.get_ref(0)?.as_blob()?))
}

/// Erases the metadata of a user's next events before a position, `entries_max` at most; answers where
/// to go on, if there may be more.
pub(super) fn erase_metadata(
    open: &Connection,
    user: i64,
    before: Position,
    entries_max: usize,
) -> rusqlite::Result<Option<Position>> {
    let entries = histories::newest_first(open, user, before)?.take(entries_max);
    let entries: Vec<Entry> = entries.collect::<rusqlite::Result<_>>()?;
    let Some(last) = entries.last() else { return Ok(None) };
    let mut blocks: Vec<i64> = entries.iter().map(|entry| entry.block).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let (mut packer, mut unpacker) = (Packer::new()?, Unpacker::new()?);
    let user_id = user_of(open, user)?;
    for number in blocks {
        let block = read_block(open, number, &mut unpacker)?;
        let mut any = false;
        unpacker.events(&block, |mut counted| {
            let event = &mut counted.admitted.event;
            any |= event.user_id == user_id && event.metadata.take().is_some();
            packer.push(&counted)
        })?;
        let body = packer.finish()?;
        if any {
            open.prepare_cached("UPDATE blocks SET body = ? WHERE number = ?")?
                .execute(params![body, number])?;
        }
    }
    Ok((entries.len() == entries_max).then(|| last.position()))
}
