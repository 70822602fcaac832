//! The body of a block: events one after the other, compressed together.
//!
//! It begins with a varint, the length of what was compressed; the rest is one zstd frame. In the frame
//! stand, for each event, how far its offset and its log time are from those of the event before it
//! (zigzag varints; the first event's from 0), and its record after its length, as the log has it.

#[cfg(test)]
mod tests;

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

/// zstd's fastest level but for the negative ones, which take a third more room and hardly less time.
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
pub(super) struct Block(Vec<u8>);

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
        let whole = plain.len() == claimed;
        whole.then_some(Block(plain)).ok_or_else(|| damaged("a block ends before its events do"))
    }

    /// Passes all events of a block to `visit`.
    pub(super) fn events(
        &mut self,
        block: &Block,
        mut visit: impl FnMut(CountedEvent) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut rest = Rest::of(block);
        while let Some(stored) = rest.next()? {
            visit(self.read(&stored)?)?;
        }
        Ok(())
    }

    /// The event with that offset; the others are not read.
    pub(super) fn event(&mut self, block: &Block, offset: i64) -> rusqlite::Result<CountedEvent> {
        let mut rest = Rest::of(block);
        while let Some(stored) = rest.next()? {
            if stored.offset == offset {
                return self.read(&stored);
            }
        }
        Err(damaged(format_args!("the event at {offset} is not in its block")))
    }

    fn read(&mut self, stored: &Stored<'_>) -> rusqlite::Result<CountedEvent> {
        let offset = u64::try_from(stored.offset).map_err(damaged)?;
        match record::payload(stored.record, &mut self.names) {
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

/// An event as it stands in a block.
struct Stored<'a> {
    offset: i64,
    log_time: i64,
    record: &'a [u8],
}

/// What is left of a block to be read.
struct Rest<'a> {
    bytes: &'a [u8],
    last: (i64, i64),
}

impl<'a> Rest<'a> {
    fn of(block: &'a Block) -> Self {
        Self { bytes: &block.0, last: (0, 0) }
    }

    fn next(&mut self) -> rusqlite::Result<Option<Stored<'a>>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let offset = self.last.0.wrapping_add(signed_number(&mut self.bytes)?);
        let log_time = self.last.1.wrapping_add(signed_number(&mut self.bytes)?);
        self.last = (offset, log_time);
        let record = record::split_delimited(&mut self.bytes).map_err(damaged)?;
        Ok(Some(Stored { offset, log_time, record }))
    }
}
