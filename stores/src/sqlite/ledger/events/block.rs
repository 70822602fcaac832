//! The body of a block: events one after the other, compressed together.
//!
//! It begins with a varint, the length of what was compressed; the rest is one zstd frame. In the frame
//! stand, for each event, how far its offset and its log time are from those of the event before it
//! (zigzag varints; the first event's from 0), and its record after its length, as the log has it.

#[cfg(test)]
mod tests;

use std::ops::Range;

use metering::time::Timestamp;
use metering::usage::{CountedEvent, Offset, Payload};
use zstd::bulk::{Compressor, Decompressor};

use super::coding::{damaged, number, signed, signed_number, unsigned};
use crate::record::{self, Names};
use crate::sqlite::ledger::row::{foreign, stored};

/// Events of a block. More of them compress better, and cost more to read one of them.
const EVENTS_MAX: usize = 128;

/// Bytes of a block before compression, give or take an event.
const BYTES_MAX: usize = 64 * 1024;

/// What a block may claim to have before compression: far more than any has.
const CLAIMED_MAX: usize = 16 << 20;

/// The least work of the levels that zstd numbers upwards.
const LEVEL: i32 = 1;

/// Makes bodies.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    plain: Vec<u8>,
    events: usize,
    last: (i64, i64),
}

impl Packer {
    /// # Errors
    /// When there is no memory for zstd's tables.
    pub(super) fn new() -> rusqlite::Result<Self> {
        let compressor = Compressor::new(LEVEL).map_err(foreign)?;
        Ok(Self { compressor, plain: Vec::new(), events: 0, last: (0, 0) })
    }

    /// Forgets what was pushed since the last body.
    pub(super) fn clear(&mut self) {
        self.plain.clear();
        self.events = 0;
        self.last = (0, 0);
    }

    pub(super) fn is_full(&self) -> bool {
        self.events >= EVENTS_MAX || self.plain.len() >= BYTES_MAX
    }

    pub(super) fn push(&mut self, counted: &CountedEvent) -> rusqlite::Result<()> {
        let offset = stored(counted.offset.number())?;
        let log_time = counted.log_time.as_millis();
        signed(offset.wrapping_sub(self.last.0), &mut self.plain);
        signed(log_time.wrapping_sub(self.last.1), &mut self.plain);
        record::encode_delimited(&counted.admitted, &mut self.plain);
        self.last = (offset, log_time);
        self.events += 1;
        Ok(())
    }

    /// The body of what was pushed; begins the next one.
    pub(super) fn finish(&mut self) -> rusqlite::Result<Vec<u8>> {
        let mut body = Vec::new();
        unsigned(self.plain.len() as u64, &mut body);
        body.extend(self.compressor.compress(&self.plain).map_err(foreign)?);
        self.clear();
        Ok(body)
    }
}

/// Reads bodies. Events that are read with the same one share the names of their models and plans.
pub(super) struct Unpacker {
    decompressor: Decompressor<'static>,
    names: Names,
}

/// What a body holds, decompressed.
pub(super) struct Block {
    plain: Vec<u8>,
    events: Vec<Stored>,
}

/// An event as it stands in a block.
struct Stored {
    offset: i64,
    log_time: i64,
    /// Where its record is.
    record: Range<usize>,
}

impl Unpacker {
    /// # Errors
    /// When there is no memory for zstd's tables.
    pub(super) fn new() -> rusqlite::Result<Self> {
        let decompressor = Decompressor::new().map_err(foreign)?;
        Ok(Self { decompressor, names: Names::default() })
    }

    pub(super) fn unpack(&mut self, mut body: &[u8]) -> rusqlite::Result<Block> {
        let claimed = usize::try_from(number(&mut body)?).unwrap_or(usize::MAX);
        if claimed > CLAIMED_MAX {
            return Err(damaged("a block claims to be larger than any is"));
        }
        let plain = self.decompressor.decompress(body, claimed).map_err(damaged)?;
        if plain.len() != claimed {
            return Err(damaged("a block ends before its events do"));
        }
        let events = places(&plain)?;
        Ok(Block { plain, events })
    }

    /// Passes all events of a block to `visit`.
    pub(super) fn events(
        &mut self,
        block: &Block,
        mut visit: impl FnMut(CountedEvent) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        block.events.iter().try_for_each(|stored| visit(self.read(block, stored)?))
    }

    /// The event with that offset; the others are not read.
    pub(super) fn event(&mut self, block: &Block, offset: i64) -> rusqlite::Result<CountedEvent> {
        let missing = || damaged(format_args!("the event at {offset} is not in its block"));
        let stored = block.events.iter().find(|stored| stored.offset == offset);
        self.read(block, stored.ok_or_else(missing)?)
    }

    fn read(&mut self, block: &Block, stored: &Stored) -> rusqlite::Result<CountedEvent> {
        let offset = u64::try_from(stored.offset).map_err(damaged)?;
        match record::payload(&block.plain[stored.record.clone()], &mut self.names) {
            Payload::Event(admitted) => Ok(CountedEvent {
                offset: Offset::new(offset),
                log_time: Timestamp::from_millis(stored.log_time),
                admitted,
            }),
            Payload::Undecodable { reason, .. } => Err(damaged(reason)),
            Payload::Tick(_) => Err(damaged("a tick was counted")),
        }
    }
}

fn places(plain: &[u8]) -> rusqlite::Result<Vec<Stored>> {
    let (mut rest, mut events) = (plain, Vec::with_capacity(EVENTS_MAX));
    let mut last = (0_i64, 0_i64);
    while !rest.is_empty() {
        let offset = last.0.wrapping_add(signed_number(&mut rest)?);
        let log_time = last.1.wrapping_add(signed_number(&mut rest)?);
        let length = record::split_delimited(&mut rest).map_err(damaged)?.len();
        let end = plain.len() - rest.len();
        events.push(Stored { offset, log_time, record: end - length..end });
        last = (offset, log_time);
    }
    Ok(events)
}
