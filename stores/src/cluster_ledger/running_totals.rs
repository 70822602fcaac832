//! The absolute totals of summary rows, so that a flush need not read what it adds to.

use std::collections::HashMap;
use std::hash::Hash;

use metering::accounts::UserId;
use metering::time::{Day, Hour};
use metering::usage::{Breakdown, Offset, Sums};

/// A summary row: the sums of all its events below `version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) sums: Sums,
    pub(super) version: Offset,
}

/// All rows of a user's day, or of an hour of one partition: what is not among them was never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows(Vec<(Breakdown, Running)>);

/// The rows of one partition that were written last.
#[derive(Default)]
pub(super) struct RunningTotals {
    pub(super) daily: Ages<(Day, UserId)>,
    pub(super) hourly: Ages<Hour>,
}

/// A bounded cache: when the young are too many they become the old, and the old are forgotten.
pub(super) struct Ages<K> {
    young: HashMap<K, Rows>,
    /// Rows of the young.
    young_rows: usize,
    old: HashMap<K, Rows>,
}

impl Rows {
    /// A row that was never written is one without events.
    pub(super) fn get(&self, breakdown: &Breakdown) -> Running {
        self.place(breakdown).map_or_else(|_| Running::default(), |place| self.0[place].1)
    }

    pub(super) fn set(&mut self, breakdown: Breakdown, running: Running) {
        match self.place(&breakdown) {
            Ok(place) => self.0[place].1 = running,
            Err(place) => self.0.insert(place, (breakdown, running)),
        }
    }

    fn place(&self, breakdown: &Breakdown) -> Result<usize, usize> {
        self.0.binary_search_by(|(one, _)| one.cmp(breakdown))
    }
}

impl<K> Default for Ages<K> {
    fn default() -> Self {
        Self { young: HashMap::new(), young_rows: 0, old: HashMap::new() }
    }
}

impl<K: Eq + Hash> Ages<K> {
    pub(super) fn get(&self, key: &K) -> Option<&Rows> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(super) fn put(&mut self, key: K, rows: Rows, rows_max: usize) {
        if self.young_rows >= rows_max.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
            self.young_rows = 0;
        }
        self.young_rows += rows.0.len();
        let before = self.young.insert(key, rows);
        self.young_rows -= before.map_or(0, |rows| rows.0.len());
    }
}

#[cfg(test)]
mod tests {
    use metering::quota::PlanName;
    use metering::usage::{ModelName, RequestType};

    use super::*;

    fn breakdown(model: &str) -> Breakdown {
        let (model, plan) = (ModelName::new(model), PlanName::new("free"));
        Breakdown { request_type: RequestType::Chat, model, plan }
    }

    fn at(version: u64) -> Running {
        Running { version: Offset::new(version), ..Running::default() }
    }

    #[test]
    fn rows_are_found_by_what_they_are_split_by() {
        let mut rows = Rows::default();
        for (model, version) in [("b", 1), ("c", 2), ("a", 3), ("b", 4)] {
            rows.set(breakdown(model), at(version));
        }
        let found = ["a", "b", "c", "d"].map(|model| rows.get(&breakdown(model)));
        assert_eq!(found, [at(3), at(4), at(2), Running::default()]);
    }

    #[test]
    fn the_cache_keeps_the_latest_and_stays_small() {
        const ROWS_MAX: usize = 20;
        let mut ages = Ages::default();
        for number in 0..1000_u64 {
            let mut rows = Rows::default();
            rows.set(breakdown("a"), at(number));
            rows.set(breakdown("b"), at(number));
            ages.put(number % 100, rows.clone(), ROWS_MAX);
            assert_eq!(ages.get(&(number % 100)), Some(&rows));
            let all = ages.young.values().chain(ages.old.values());
            assert!(all.map(|rows| rows.0.len()).sum::<usize>() <= ROWS_MAX);
            assert!(number == 0 || ages.get(&((number - 1) % 100)).is_some());
        }
        assert_eq!(ages.get(&50), None);
    }

    #[test]
    fn who_is_put_again_and_again_counts_once() {
        let mut ages = Ages::default();
        let mut rows = Rows::default();
        rows.set(breakdown("a"), at(1));
        ages.put(0, rows.clone(), 4);
        for _ in 0..100 {
            ages.put(1, rows.clone(), 4);
        }
        assert!(ages.get(&0).is_some());
    }
}
