//! Reading records, on a connection that never writes.

use std::sync::{Mutex, PoisonError};

use metering::Unavailable;
use metering::time::Timestamp;
use metering::usage::{LogRecord, Offset, Payload};
use rusqlite::Connection;

use super::{stopped, unavailable};
use crate::record::{self, Names};

/// The reading connection: one read at a time.
#[derive(Debug)]
pub(super) struct Reader(Mutex<Option<Connection>>);

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Mutex::new(Some(connection)))
    }

    /// Waits for the read that is under way; later ones are unavailable.
    pub(super) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The records of `[from, end)`, at most `records_max`. Blocks on the disk.
    pub(super) fn read(
        &self,
        from: Offset,
        end: Offset,
        records_max: usize,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = connection.as_ref().ok_or_else(stopped)?;
        let mut segments =
            connection.prepare_cached(include_str!("read.sql")).map_err(unavailable)?;
        let mut rows = segments.query([from.number(), end.number()]).map_err(unavailable)?;
        let count = end.number().saturating_sub(from.number());
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(records_max);
        let (mut records, mut names) = (Vec::with_capacity(count), Names::default());
        let mut expected = None;
        while records.len() < count {
            let Some(row) = rows.next().map_err(unavailable)? else {
                let at = expected.unwrap_or(from);
                return Err(unavailable(format!("it does not hold the record at {at} (any more)")));
            };
            let segment = Segment {
                first: Offset::new(row.get(0).map_err(unavailable)?),
                records: row.get(1).map_err(unavailable)?,
                log_time: Timestamp::from_millis(row.get(2).map_err(unavailable)?),
                body: row
                    .get_ref(3)
                    .map_err(unavailable)?
                    .as_blob()
                    .map_err(|error| unavailable(format!("a segment's body: {error}")))?,
            };
            if segment.first != expected.unwrap_or(segment.first) || segment.end() <= from {
                let at = expected.unwrap_or(from);
                return Err(unavailable(format!("it has a gap at {at}")));
            }
            expected = Some(segment.end());
            segment.take(from, count, &mut names, &mut records);
        }
        Ok(records)
    }
}

/// A row of the log.
struct Segment<'a> {
    first: Offset,
    records: u64,
    log_time: Timestamp,
    body: &'a [u8],
}

impl Segment<'_> {
    fn end(&self) -> Offset {
        self.first.plus(self.records)
    }

    /// Adds its records from `from` on, until there are `count`.
    fn take(&self, from: Offset, count: usize, names: &mut Names, into: &mut Vec<LogRecord>) {
        let mut stream = self.body;
        for place in 0..self.records {
            if into.len() >= count {
                return;
            }
            let offset = self.first.plus(place);
            let rest = stream;
            let payload = match record::split_delimited(&mut stream) {
                Ok(_) if offset < from => continue,
                Ok(value) => record::payload(value, names),
                Err(error) => {
                    // Where the next record begins is lost: the rest of the segment is one dead
                    // letter, and each record after it an empty one, so that offsets stay dense.
                    stream = &[];
                    Payload::Undecodable { bytes: rest.to_vec(), reason: error.to_string() }
                }
            };
            if offset >= from {
                into.push(LogRecord { offset, log_time: self.log_time, payload });
            }
        }
    }
}
