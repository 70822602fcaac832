use metering::accounts::UserId;
use metering::usage::EventId;
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::sqlite::ledger::ids::index::{self, DATABASE};
use crate::sqlite::ledger::readers::Readers;
use crate::sqlite::ledger::tiers::FAN_IN;

/// An index file of its own, gone when dropped.
struct File {
    connection: Connection,
    readers: Readers,
    directory: TempDir,
}

impl File {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ids.db");
        let connection = DATABASE.open(&path).unwrap();
        Self { connection, readers: Readers::new(DATABASE, &path), directory }
    }

    /// As another process finds it.
    fn reopen(&mut self) {
        self.connection = DATABASE.open(&self.directory.path().join("ids.db")).unwrap();
    }

    /// One transaction, as the indexer's.
    fn within<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        let open = self.connection.transaction().unwrap();
        let done = work(&open).unwrap();
        open.commit().unwrap();
        done
    }

    fn add(&mut self, numbers: impl Iterator<Item = u64>) {
        let mut sorted: Vec<_> = numbers.map(entry).collect();
        sorted.sort_unstable_by_key(|(id, _)| *id);
        self.within(|open| add(open, &sorted));
    }

    fn ids(&self) -> usize {
        let mut ids = 0;
        let count = |_: &IdDigest| {
            ids += 1;
            true
        };
        scan(&self.connection, count).unwrap();
        ids
    }

    fn runs(&self) -> usize {
        Run::all(&self.connection).unwrap().len()
    }
}

/// Which of these are known, each with the right event.
fn known(readers: &Readers, numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    let numbers: Vec<_> = numbers.collect();
    let asked: Vec<_> = numbers.iter().map(|number| entry(*number).0).enumerate().collect();
    let found = readers.try_read(|open| index::find(open, &asked)).unwrap();
    let mut known = Vec::new();
    for (place, event) in found {
        assert_eq!(event, entry(numbers[place]).1);
        known.push(numbers[place]);
    }
    known.sort_unstable();
    known
}

/// The event at an offset.
fn entry(number: u64) -> Entry {
    let id = EventId::new(&number.to_string()).unwrap();
    let content = ContentDigest(number.to_be_bytes());
    let event = KnownEvent { offset: Offset::new(number), content };
    (IdDigest::of_event(UserId::from_bytes([1; 16]), &id), event)
}

/// In a generation at least.
const GENERATION: u64 = GENERATION_IDS as u64 + 1;

/// Of a merge that takes several steps.
const MANY: u64 = FAN_IN as u64 * GENERATION;

/// Some of many, and some that nobody added.
fn sample() -> impl Iterator<Item = u64> {
    (0..MANY + 10_000).step_by(997)
}

fn file_of_many() -> File {
    let mut file = File::new();
    for run in 0..FAN_IN as u64 {
        file.add(run * GENERATION..(run + 1) * GENERATION);
    }
    file
}

#[test]
fn at_every_step_of_a_merge_each_id_stands_in_one_place() {
    let mut file = file_of_many();
    let expected: Vec<_> = sample().filter(|number| *number < MANY).collect();
    let mut steps = 0;
    while file.within(merge_some) {
        assert_eq!(file.ids(), usize::try_from(MANY).unwrap());
        assert_eq!(known(&file.readers, sample()), expected);
        // Whoever goes on may be another process.
        file.reopen();
        steps += 1;
    }
    assert!(steps > 2, "the merge took {steps} steps");
    assert_eq!(file.runs(), 1);
}

#[test]
fn who_looks_up_beside_a_merge_misses_nothing() {
    let mut file = file_of_many();
    let expected: Vec<_> = sample().filter(|number| *number < MANY).collect();
    let readers = file.readers.clone();
    let merging = std::thread::spawn(move || {
        while file.within(merge_some) {}
        file
    });
    while !merging.is_finished() {
        assert_eq!(known(&readers, sample()), expected);
    }
    assert_eq!(merging.join().unwrap().runs(), 1);
}

#[test]
fn ids_of_later_events_are_forgotten_from_runs_and_from_what_is_half_merged() {
    for steps in 0..3 {
        let mut file = file_of_many();
        for _ in 0..steps {
            assert!(file.within(merge_some));
        }
        let position = MANY / 2 + 7;
        let gone = file.within(|open| forget_from(open, Offset::new(position)));
        assert_eq!(gone, MANY - position);
        let left: Vec<_> = sample().filter(|number| *number < position).collect();
        assert_eq!(known(&file.readers, sample()), left);
        // What is added again is known again.
        file.add(position..MANY);
        while file.within(merge_some) {}
        let all: Vec<_> = sample().filter(|number| *number < MANY).collect();
        assert_eq!(known(&file.readers, sample()), all);
        assert_eq!(file.ids(), usize::try_from(MANY).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn however_many_are_added_at_a_time_all_are_known(
        sizes in vec(prop_oneof![0..3_u64, 0..300_u64], 0..24),
        merges in vec(0..4_usize, 24),
    ) {
        let mut file = File::new();
        let mut added = 0;
        for (size, merges) in sizes.into_iter().zip(merges) {
            file.add(added..added + size);
            added += size;
            for _ in 0..merges {
                file.within(merge_some);
            }
            prop_assert_eq!(known(&file.readers, 0..added + 50), (0..added).collect::<Vec<_>>());
        }
        while file.within(merge_some) {}
        prop_assert_eq!(known(&file.readers, 0..added + 50), (0..added).collect::<Vec<_>>());
        prop_assert!(file.runs() < FAN_IN);
    }
}
