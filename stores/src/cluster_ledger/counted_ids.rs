//! The ids that were counted lately in one partition, so that a repeat is seen without a question.

use std::time::Duration;

use hashbrown::HashMap;
use metering::time::Timestamp;
use metering::usage::{ContentDigest, IdDigest, Seen};

/// Memory for each id: its entry has 32 bytes, and the table is a fifth empty on average.
pub(super) const BYTES_PER_ID: usize = 40;

/// Milliseconds since year 1 in 7 bytes: so an entry has no padding.
type ShortTime = [u8; 7];

/// The newest count of each id since some log time.
pub(super) struct CountedIds {
    /// Every id counted at this log time or later is here.
    floor: Timestamp,
    /// None is older than this.
    oldest: Timestamp,
    seen: HashMap<IdDigest, ([u8; 8], ShortTime)>,
}

impl CountedIds {
    /// None yet, of all that were counted at `floor` or later.
    pub(super) fn since(floor: Timestamp) -> Self {
        Self { floor, oldest: Timestamp::MAX, seen: HashMap::new() }
    }

    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    pub(super) fn oldest(&self) -> Timestamp {
        self.oldest
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// In the order of the log: the latest one stays.
    pub(super) fn insert(&mut self, id: IdDigest, content: ContentDigest, log_time: Timestamp) {
        self.oldest = self.oldest.min(log_time);
        self.seen.insert(id, (content.0, short(log_time)));
    }

    pub(super) fn get(&self, id: &IdDigest) -> Option<Seen> {
        let (content, log_time) = self.seen.get(id)?;
        Some(Seen { content: ContentDigest(*content), log_time: long(*log_time) })
    }

    /// Forgets what was counted before `floor`, if it is worth it: a pass over all of them, for at
    /// least `worth` of log time.
    pub(super) fn forget_before(&mut self, floor: Timestamp, worth: Duration) {
        if floor <= self.floor || self.oldest.plus(worth) > floor {
            return;
        }
        let first = short(floor);
        self.seen.retain(|_, (_, log_time)| *log_time >= first);
        if self.seen.len() < self.seen.capacity() / 4 {
            self.seen.shrink_to(self.seen.len() * 2);
        }
        (self.floor, self.oldest) = (floor, floor);
    }
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
