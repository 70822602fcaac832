//! The ids that were counted lately in one partition, so that a repeat is seen without a question.

use std::collections::VecDeque;

use hashbrown::HashTable;
use metering::time::Timestamp;
use metering::usage::{ContentDigest, IdDigest, Seen};

/// Memory for each id: 31 bytes in a chunk, and 5 in a table that has 8/7 to 16/7 places for each.
pub(super) const BYTES_PER_ID: usize = 40;

/// Ids that are allocated together; a power of two, so that places stay aligned when they wrap.
const CHUNK: usize = CHUNK_PLACES as usize;
const CHUNK_PLACES: Place = 1024;

/// Milliseconds since year 1 in 7 bytes: so an entry has no padding.
type ShortTime = [u8; 7];

/// The newest count of each id since some log time.
///
/// A table of the ids themselves would be half empty whenever it has doubled. So they stand in the order
/// of the log without gaps, the oldest leave in front, and the table has only their places.
pub(super) struct CountedIds {
    /// Every id counted at this log time or later is here.
    floor: Timestamp,
    counts: Counts,
    /// Where the newest count of each id stands.
    places: HashTable<Place>,
}

/// How many came before it since the partition was taken over; wraps.
type Place = u32;

struct Count {
    id: IdDigest,
    content: [u8; 8],
    log_time: ShortTime,
}

/// Counts in the order of the log.
#[derive(Default)]
struct Counts {
    /// All but the last one are full; some at the beginning of the first one are gone.
    chunks: VecDeque<Vec<Count>>,
    first: Place,
    next: Place,
}

impl CountedIds {
    /// None yet, of all that were counted at `floor` or later.
    pub(super) fn since(floor: Timestamp) -> Self {
        Self { floor, counts: Counts::default(), places: HashTable::new() }
    }

    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    /// When the first of them was counted; a later one may be older by as much as the log's time steps
    /// back.
    pub(super) fn oldest(&self) -> Timestamp {
        self.counts.first().map_or(Timestamp::MAX, |count| long(count.log_time))
    }

    /// Counts that are kept, older ones of the same id among them.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// In the order of the log: the latest one stays.
    pub(super) fn insert(&mut self, id: IdDigest, content: ContentDigest, log_time: Timestamp) {
        let Self { counts, places, .. } = self;
        let count = Count { id, content: content.0, log_time: short(log_time) };
        let place = counts.push(count);
        let same = |other: &Place| counts.at(*other).id == id;
        *places
            .entry(hash(&id), same, |place| hash(&counts.at(*place).id))
            .or_insert(place)
            .get_mut() = place;
    }

    pub(super) fn get(&self, id: &IdDigest) -> Option<Seen> {
        let same = |place: &Place| self.counts.at(*place).id == *id;
        let count = self.counts.at(*self.places.find(hash(id), same)?);
        Some(Seen { content: ContentDigest(count.content), log_time: long(count.log_time) })
    }

    /// Forgets what was counted before `floor`. Where the log's time has stepped back, a little more
    /// stays for a moment.
    pub(super) fn forget_before(&mut self, floor: Timestamp) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        let (Self { counts, places, .. }, floor) = (self, short(floor));
        while let Some(count) = counts.first().filter(|count| count.log_time < floor) {
            // An older count of an id that was counted again has no place in the table any more.
            if let Ok(place) = places.find_entry(hash(&count.id), |place| *place == counts.first) {
                place.remove();
            }
            counts.pop();
        }
        if places.len() < places.capacity() / 4 {
            places.shrink_to(places.len() * 2, |place| hash(&counts.at(*place).id));
        }
    }
}

impl Counts {
    fn len(&self) -> usize {
        self.place_in_chunks(self.next) - self.place_in_chunks(self.first)
    }

    fn at(&self, place: Place) -> &Count {
        let place = self.place_in_chunks(place);
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    fn first(&self) -> Option<&Count> {
        (self.first != self.next).then(|| self.at(self.first))
    }

    fn push(&mut self, count: Count) -> Place {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push(count);
        }
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        place
    }

    /// The first one leaves.
    fn pop(&mut self) {
        self.first = self.first.wrapping_add(1);
        if self.first.is_multiple_of(CHUNK_PLACES) {
            self.chunks.pop_front();
        }
    }

    /// Counted from the beginning of the first chunk.
    fn place_in_chunks(&self, place: Place) -> usize {
        let begin = self.first - self.first % CHUNK_PLACES;
        usize::try_from(place.wrapping_sub(begin)).unwrap_or(usize::MAX)
    }
}

/// The half of a digest that the table asks for spreads as well as the other.
fn hash(IdDigest([.., a, b, c, d, e, f, g, h]): &IdDigest) -> u64 {
    u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
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
    use std::collections::HashMap;
    use std::time::Duration;

    use metering::accounts::UserId;
    use metering::usage::EventId;
    use proptest::prelude::*;

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
    fn ids_take_the_memory_that_is_said_however_many_they_are() {
        let mut ids = CountedIds::since(Timestamp::MIN);
        let user = UserId::from_bytes([1; 16]);
        for number in 1..=100_000_usize {
            let id = IdDigest::of_event(user, &EventId::new(&format!("event {number}")).unwrap());
            ids.insert(id, ContentDigest([0; 8]), Timestamp::default());
            if number > 20_000 {
                let chunks = ids.counts.chunks.len() * CHUNK * size_of::<Count>();
                let bytes = chunks + ids.places.allocation_size();
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
        ids.insert(id(2), ContentDigest([3; 8]), start);
        ids.insert(id(1), ContentDigest([2; 8]), start.plus(HOUR));
        assert_eq!(ids.get(&id(1)).unwrap().content, ContentDigest([2; 8]));
        assert_eq!((ids.len(), ids.oldest()), (3, start));
        ids.forget_before(start.plus(HOUR));
        assert_eq!((ids.len(), ids.floor()), (1, start.plus(HOUR)));
        assert_eq!(ids.get(&id(1)).unwrap().content, ContentDigest([2; 8]));
        assert_eq!((ids.get(&id(2)), ids.oldest()), (None, start.plus(HOUR)));
    }

    #[test]
    fn what_is_forgotten_gives_its_memory_back() {
        let (start, mut ids) = (Timestamp::default(), CountedIds::since(Timestamp::MIN));
        for number in 0..100 * CHUNK {
            let user = UserId::from_bytes([1; 16]);
            let id = IdDigest::of_event(user, &EventId::new(&number.to_string()).unwrap());
            ids.insert(id, ContentDigest([0; 8]), start);
        }
        let before = ids.places.allocation_size();
        ids.insert(id(1), ContentDigest([1; 8]), start.plus(HOUR));
        ids.forget_before(start.plus(HOUR));
        assert_eq!((ids.len(), ids.counts.chunks.len()), (1, 1));
        assert!(ids.places.allocation_size() < before / 100);
        assert!(ids.get(&id(1)).is_some());
    }

    proptest! {
        /// Also where the places wrap.
        #[test]
        fn every_id_since_the_floor_is_known_with_its_newest_count(
            first in prop_oneof![Just(0), Just(u32::MAX - 100), Just(CHUNK_PLACES - 3)],
            steps in prop::collection::vec((0..40u8, 1..200u64, any::<bool>()), 1..400),
        ) {
            let mut ids = CountedIds::since(Timestamp::MIN);
            (ids.counts.first, ids.counts.next) = (first, first);
            ids.counts.chunks.push_back(Vec::with_capacity(CHUNK));
            for _ in 0..first % CHUNK_PLACES {
                let gone = Count { id: id(255), content: [0; 8], log_time: [0; 7] };
                ids.counts.chunks[0].push(gone);
            }
            let (mut model, mut now) = (HashMap::new(), Timestamp::default());
            for (step, (number, passed, forgets)) in steps.into_iter().enumerate() {
                now = now.plus(Duration::from_millis(passed));
                let content = ContentDigest(step.to_le_bytes());
                ids.insert(id(number), content, now);
                model.insert(number, Seen { content, log_time: now });
                if forgets {
                    let floor = now.minus(Duration::from_secs(2));
                    ids.forget_before(floor);
                    model.retain(|_, seen| seen.log_time >= floor);
                }
                for number in 0..40 {
                    prop_assert_eq!(ids.get(&id(number)), model.get(&number).copied());
                }
                prop_assert!(ids.places.len() <= ids.len());
            }
        }
    }
}
