//! The absolute totals of summary rows, so that a flush need not read what it adds to.

use std::collections::HashMap;
use std::hash::Hash;

use metering::time::Hour;
use metering::usage::{Breakdown, Offset, SummaryKey, Sums};

/// A summary row: the sums of all its events below `version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) sums: Sums,
    pub(super) version: Offset,
}

/// The rows of one partition that were written last.
#[derive(Default)]
pub(super) struct RunningTotals {
    pub(super) daily: Ages<SummaryKey>,
    pub(super) hourly: Ages<(Hour, Breakdown)>,
}

/// A bounded cache: when the young are too many they become the old, and the old are forgotten.
pub(super) struct Ages<K> {
    young: HashMap<K, Running>,
    old: HashMap<K, Running>,
}

impl<K> Default for Ages<K> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash> Ages<K> {
    pub(super) fn get(&self, key: &K) -> Option<Running> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    pub(super) fn insert(&mut self, key: K, running: Running, entries_max: usize) {
        if self.young.len() >= entries_max.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_the_latest_and_stays_small() {
        let mut ages = Ages::default();
        let at = |version| Running { version: Offset::new(version), ..Running::default() };
        for number in 0..1000_u64 {
            ages.insert(number % 100, at(number), 20);
            assert_eq!(ages.get(&(number % 100)), Some(at(number)));
            assert!(ages.young.len() + ages.old.len() <= 20);
        }
        assert_eq!(ages.get(&50), None);
    }
}
