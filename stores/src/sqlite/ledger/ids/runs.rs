//! Sorted runs of ids, each in buckets by the leading bits of their digests.
//!
//! Runs are merged as [`tiers`] says. Digests are spread evenly, so the bucket in which an id would
//! stand follows from the digest and the size of the run: a look-up reads one row of each run.

use metering::usage::{ContentDigest, IdDigest, KnownEvent, Offset};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::GENERATION_IDS;
use crate::sqlite::ledger::row::{count, stored};
use crate::sqlite::ledger::tiers;

#[cfg(test)]
mod tests;

/// An id and the event that has it.
pub(super) type Entry = (IdDigest, KnownEvent);

/// Ids that one step of a merge moves, or up to twice as many: some 16 MB of memory.
const MERGED_AT_ONCE: u64 = 2 * GENERATION_IDS as u64;

/// A bucket has so many ids on average, or up to twice as many: a few hundred bytes.
const BUCKET_IDS: u64 = 8;

/// Bits of a place that are the bucket's; those above are the run's: there may be 2^27 of them.
const BUCKET_BITS: u32 = 36;

/// An entry in a bucket: digest, offset, digest of the content.
const ENTRY_BYTES: usize = 16 + 8 + 8;

/// Ids that were added or merged together.
#[derive(Clone, Debug)]
pub(super) struct Run {
    number: u64,
    ids: u64,
    bits: u32,
    merging_into: Option<u64>,
}

impl tiers::Run for Run {
    fn number(&self) -> u64 {
        self.number
    }

    fn size(&self) -> u64 {
        self.ids
    }

    fn merging_into(&self) -> Option<u64> {
        self.merging_into
    }
}

impl Run {
    /// A new one for so many ids.
    fn make(open: &Connection, ids: u64) -> rusqlite::Result<Self> {
        let bits = (ids / BUCKET_IDS).max(1).ilog2().min(BUCKET_BITS);
        let number = open.query_row(
            "INSERT INTO runs (ids, bits) VALUES (?, ?) RETURNING number",
            params![stored(ids)?, bits],
            |row| count(row, 0),
        )?;
        Ok(Self { number, ids, bits, merging_into: None })
    }

    /// All runs, newest first.
    pub(super) fn all(open: &Connection) -> rusqlite::Result<Vec<Self>> {
        let select = "SELECT number, ids, bits, merging_into FROM runs ORDER BY number DESC";
        open.prepare_cached(select)?
            .query_map([], |row| {
                let merging_into: Option<i64> = row.get(3)?;
                Ok(Self {
                    number: count(row, 0)?,
                    ids: count(row, 1)?,
                    bits: row.get(2)?,
                    merging_into: merging_into.map(|_| count(row, 3)).transpose()?,
                })
            })?
            .collect()
    }

    fn bucket_of(&self, id: &IdDigest) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = id.0;
        let leading = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        leading.checked_shr(u64::BITS - self.bits).unwrap_or(0)
    }

    fn place(&self, bucket: u64) -> rusqlite::Result<i64> {
        stored((self.number << BUCKET_BITS) + bucket)
    }

    /// What the run knows of an id.
    pub(super) fn find(
        &self,
        open: &Connection,
        id: &IdDigest,
    ) -> rusqlite::Result<Option<KnownEvent>> {
        let mut select = open.prepare_cached("SELECT ids FROM buckets WHERE place = ?")?;
        let found = select
            .query_row([self.place(self.bucket_of(id))?], |row| {
                let bucket = row.get_ref(0)?.as_blob()?;
                Ok(entries(bucket).find(|(found, _)| found == id))
            })
            .optional()?;
        Ok(found.flatten().map(|(_, event)| event))
    }

    /// Adds entries (sorted) to buckets that do not exist yet.
    fn fill(&self, open: &Connection, sorted: &[Entry]) -> rusqlite::Result<()> {
        let mut insert = open.prepare_cached("INSERT INTO buckets VALUES (?, ?)")?;
        let mut bytes = Vec::new();
        let bucket_of = |entry: &Entry| self.bucket_of(&entry.0);
        for bucket in sorted.chunk_by(|one, next| bucket_of(one) == bucket_of(next)) {
            encode(bucket, &mut bytes);
            insert.execute(params![self.place(bucket_of(&bucket[0]))?, bytes])?;
        }
        Ok(())
    }

    /// The places of one of `2^bits` equal parts of all digests; `bits` are no more than the run's.
    fn part(&self, bits: u32, part: u64) -> rusqlite::Result<[i64; 2]> {
        let width = self.bits - bits;
        Ok([self.place(part << width)?, self.place((part + 1) << width)?])
    }

    /// The first of `2^bits` parts in which there is anything.
    fn first_part(&self, open: &Connection, bits: u32) -> rusqlite::Result<Option<u64>> {
        let [start, end] = self.part(0, 0)?;
        let select = "SELECT min(place) FROM buckets WHERE place >= ? AND place < ?";
        let first: Option<i64> =
            open.prepare_cached(select)?.query_row([start, end], |row| row.get(0))?;
        let bucket = first.and_then(|place| u64::try_from(place - start).ok());
        Ok(bucket.map(|bucket| bucket >> (self.bits - bits)))
    }

    /// Takes all entries out of one of `2^bits` parts.
    fn take_part(
        &self,
        open: &Connection,
        (bits, part): (u32, u64),
        taken: &mut Vec<Entry>,
    ) -> rusqlite::Result<()> {
        let places = self.part(bits, part)?;
        let select = "SELECT ids FROM buckets WHERE place >= ? AND place < ?";
        let mut select = open.prepare_cached(select)?;
        let mut rows = select.query(places)?;
        while let Some(row) = rows.next()? {
            taken.extend(entries(row.get_ref(0)?.as_blob()?));
        }
        open.prepare_cached("DELETE FROM buckets WHERE place >= ? AND place < ?")?
            .execute(places)?;
        Ok(())
    }
}

/// Makes a run of entries, sorted by digest.
pub(super) fn add(open: &Connection, sorted: &[Entry]) -> rusqlite::Result<()> {
    if sorted.is_empty() {
        return Ok(());
    }
    let ids = u64::try_from(sorted.len()).unwrap_or(u64::MAX);
    Run::make(open, ids)?.fill(open, sorted)
}

/// One step of the smallest merge that is due or under way, within the caller's transaction: at any
/// time each id stands in one run. `false`: there is none.
pub(super) fn merge_some(open: &Connection) -> rusqlite::Result<bool> {
    let make = |ids| Run::make(open, ids).map(|run| run.number);
    tiers::begin_due(open, &Run::all(open)?, GENERATION_IDS as u64, make)?;
    let runs = Run::all(open)?;
    let Some(merge) = tiers::under_way(&runs).into_iter().next() else { return Ok(false) };
    let (target, sources) = (merge.target, &merge.sources);
    // No more parts than the smallest source has buckets, so that none is cut in two.
    let bits = (target.ids / MERGED_AT_ONCE).max(1).ilog2();
    let bits = sources.iter().map(|run| run.bits).fold(bits, u32::min);
    let mut next = None;
    for source in sources {
        let first = source.first_part(open, bits)?;
        next = next.into_iter().chain(first).min();
    }
    let Some(part) = next else {
        tiers::end(open, &merge)?;
        return Ok(true);
    };
    let mut moved = Vec::new();
    for source in sources {
        source.take_part(open, (bits, part), &mut moved)?;
    }
    moved.sort_unstable_by_key(|(id, _)| *id);
    target.fill(open, &moved)?;
    Ok(true)
}

/// Passes every id to `visit`, until it answers `false`.
pub(super) fn scan(
    open: &Connection,
    mut visit: impl FnMut(&IdDigest) -> bool,
) -> rusqlite::Result<()> {
    let mut select = open.prepare("SELECT ids FROM buckets")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if !entries(row.get_ref(0)?.as_blob()?).all(|(id, _)| visit(&id)) {
            break;
        }
    }
    Ok(())
}

/// Drops the ids of all events from `position` on; answers how many.
pub(super) fn forget_from(open: &Connection, position: Offset) -> rusqlite::Result<u64> {
    let mut gone = 0;
    let mut select = open.prepare("SELECT place, ids FROM buckets")?;
    let mut update = open.prepare("UPDATE buckets SET ids = ? WHERE place = ?")?;
    // The rows that change: few, as the ledger loses some seconds at most.
    let mut changed = Vec::new();
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let mut left = Vec::new();
        let bucket = row.get_ref(1)?.as_blob()?;
        left.extend(entries(bucket).filter(|(_, event)| event.offset < position));
        let lost = bucket.len() / ENTRY_BYTES - left.len();
        if lost > 0 {
            gone += u64::try_from(lost).unwrap_or(0);
            changed.push((row.get::<_, i64>(0)?, left));
        }
    }
    let mut bytes = Vec::new();
    for (place, left) in changed {
        encode(&left, &mut bytes);
        update.execute(params![bytes, place])?;
    }
    Ok(gone)
}

fn encode(bucket: &[Entry], bytes: &mut Vec<u8>) {
    bytes.clear();
    for (id, event) in bucket {
        bytes.extend_from_slice(&id.0);
        bytes.extend_from_slice(&event.offset.number().to_be_bytes());
        bytes.extend_from_slice(&event.content.0);
    }
}

fn entries(bucket: &[u8]) -> impl Iterator<Item = Entry> {
    bucket.chunks_exact(ENTRY_BYTES).filter_map(decode)
}

fn decode(entry: &[u8]) -> Option<Entry> {
    let (id, rest) = entry.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (content, _) = rest.split_first_chunk()?;
    let offset = Offset::new(u64::from_be_bytes(*offset));
    Some((IdDigest(*id), KnownEvent { offset, content: ContentDigest(*content) }))
}
