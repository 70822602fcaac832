//! The ids that were counted lately in one partition, so that a repeat is seen without a question.

use std::time::Duration;

use hashbrown::HashMap;
use metering::time::Timestamp;
use metering::usage::{ContentDigest, IdDigest, Seen};

/// Memory for each id: its place in a table takes 32 bytes, and a table has 8/7 to 16/7 places for
/// each; the tables are at all points between.
pub(super) const BYTES_PER_ID: usize = 53;

const TABLES: usize = 8;

/// Where the second and each further table begins, by the first 32 bits of an id: at 2^(n/8) - 1 of their
/// range, so that each table has 2^(1/8) times as many ids as the one before.
const TABLE_STARTS: [u32; TABLES - 1] =
    [0x172b83c7, 0x306fe0a3, 0x4bfdad53, 0x6a09e667, 0x8ace5422, 0xae89f995, 0xd5818dcf];

/// Milliseconds since year 1 in 7 bytes: so an entry has no padding.
type ShortTime = [u8; 7];

/// The newest count of each id since some log time.
///
/// A hash table doubles, and is half empty then. Those of all partitions would at the same moment, as
/// they grow alike. So each has several tables of different sizes, which double one after the other:
/// together they take the same memory for each id, however many there are.
pub(super) struct CountedIds {
    /// Every id counted at this log time or later is here.
    floor: Timestamp,
    /// None is older than this.
    oldest: Timestamp,
    tables: [HashMap<IdDigest, ([u8; 8], ShortTime)>; TABLES],
}

impl CountedIds {
    /// None yet, of all that were counted at `floor` or later.
    pub(super) fn since(floor: Timestamp) -> Self {
        Self { floor, oldest: Timestamp::MAX, tables: Default::default() }
    }

    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    pub(super) fn oldest(&self) -> Timestamp {
        self.oldest
    }

    pub(super) fn len(&self) -> usize {
        self.tables.iter().map(HashMap::len).sum()
    }

    /// In the order of the log: the latest one stays.
    pub(super) fn insert(&mut self, id: IdDigest, content: ContentDigest, log_time: Timestamp) {
        self.oldest = self.oldest.min(log_time);
        self.tables[table_of(&id)].insert(id, (content.0, short(log_time)));
    }

    pub(super) fn get(&self, id: &IdDigest) -> Option<Seen> {
        let (content, log_time) = self.tables[table_of(id)].get(id)?;
        Some(Seen { content: ContentDigest(*content), log_time: long(*log_time) })
    }

    /// Forgets what was counted before `floor`, if it is worth it: a pass over all of them, for at
    /// least `worth` of log time.
    pub(super) fn forget_before(&mut self, floor: Timestamp, worth: Duration) {
        if floor <= self.floor || self.oldest.plus(worth) > floor {
            return;
        }
        let first = short(floor);
        for table in &mut self.tables {
            table.retain(|_, (_, log_time)| *log_time >= first);
            if table.len() < table.capacity() / 4 {
                table.shrink_to(table.len() * 2);
            }
        }
        (self.floor, self.oldest) = (floor, floor);
    }
}

/// Digests are spread evenly over their range.
fn table_of(IdDigest([a, b, c, d, ..]): &IdDigest) -> usize {
    let first = u32::from_be_bytes([*a, *b, *c, *d]);
    TABLE_STARTS.iter().filter(|start| **start <= first).count()
}

/// Big endian, so that times compare as their bytes do.
fn short(time: Timestamp) -> ShortTime {
    let millis = time.as_millis().abs_diff(Timestamp::MIN.as_millis());
    let [_, short @ ..] = millis.to_be_bytes();
    short
}

fn long([a, b, c, d, e, f, g]: ShortTime) -> Timestamp {
    let millis = i64::from_be_bytes([0, a, b, c, d, e, f, g]);
    Timestamp::from_millis(Timestamp::MIN.as_millis().saturating_add(millis))
}

#[cfg(test)]
mod tests {
    use metering::accounts::UserId;
    use metering::usage::EventId;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn id(number: u8) -> IdDigest {
        IdDigest([number; 16])
    }

    #[test]
    fn times_survive_and_compare_as_they_are() {
        let times = [Timestamp::MIN, Timestamp::from_millis(-1), Timestamp::default()];
        for time in times.into_iter().chain([Timestamp::from_millis(1), Timestamp::MAX]) {
            assert_eq!(long(short(time)), time);
        }
        assert!(short(Timestamp::from_millis(255)) < short(Timestamp::from_millis(256)));
    }

    #[test]
    fn each_table_has_an_eighth_of_an_octave_more_than_the_one_before() {
        for (n, start) in (1..).zip(TABLE_STARTS) {
            let share = 2f64.powf(f64::from(n) / 8.0) - 1.0;
            assert!((f64::from(start) / 2f64.powi(32) - share).abs() < 1e-9);
        }
        assert_eq!(table_of(&IdDigest([0; 16])), 0);
        assert_eq!(table_of(&IdDigest([255; 16])), TABLES - 1);
    }

    #[test]
    fn ids_take_the_memory_that_is_said_however_many_they_are() {
        let mut ids = CountedIds::since(Timestamp::MIN);
        // Always the same: by chance a table doubles a little early, and chance tells nothing here.
        let user = UserId::from_bytes([1; 16]);
        for number in 1..=100_000_usize {
            let id = IdDigest::of_event(user, &EventId::new(&format!("event {number}")).unwrap());
            ids.insert(id, ContentDigest([0; 8]), Timestamp::default());
            if number > 10_000 {
                let bytes: usize = ids.tables.iter().map(HashMap::allocation_size).sum();
                let said = number * BYTES_PER_ID;
                assert!((said * 7 / 8..said * 9 / 8).contains(&bytes), "{number}: {bytes}");
            }
        }
        assert_eq!(ids.len(), 100_000);
    }

    #[test]
    fn the_latest_count_of_an_id_stays_and_old_ones_are_forgotten() {
        let (start, mut ids) = (Timestamp::default(), CountedIds::since(Timestamp::MIN));
        ids.insert(id(1), ContentDigest([1; 8]), start);
        ids.insert(id(1), ContentDigest([2; 8]), start.plus(HOUR));
        ids.insert(id(2), ContentDigest([3; 8]), start);
        assert_eq!(ids.get(&id(1)).unwrap().content, ContentDigest([2; 8]));
        // Not yet: too little would go.
        ids.forget_before(start.plus(HOUR), HOUR * 2);
        assert_eq!((ids.len(), ids.floor()), (2, Timestamp::MIN));
        ids.forget_before(start.plus(HOUR), HOUR);
        assert_eq!((ids.len(), ids.floor()), (1, start.plus(HOUR)));
        assert!(ids.get(&id(1)).is_some());
    }
}
