//! Tells most new ids to be new without a look at the index.

use std::sync::Arc;

use fastbloom::AtomicBloomFilter;
use metering::usage::IdDigest;

/// How often a part of the filter takes a new id for an old one: each time costs a look at the
/// index. At this rate an id takes about 1.4 bytes.
const FALSE_POSITIVES: f64 = 0.005;

/// Ids of the first part; each further part is twice as large.
const FIRST_PART_IDS: usize = 1 << 20;

/// Bloom filters that together hold every indexed id. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Parts(Arc<[Arc<AtomicBloomFilter>]>);

impl Parts {
    /// `false`: certainly not indexed.
    pub(super) fn may_contain(&self, id: &IdDigest) -> bool {
        self.0.iter().rev().any(|part| part.contains(id))
    }
}

/// The filter as the indexer lets it grow.
pub(super) struct Filter {
    parts: Parts,
    next_part_ids: usize,
    room: usize,
}

impl Filter {
    /// An empty one, with room for `ids` and as many again in its first part.
    pub(super) fn sized_for(ids: usize) -> Self {
        let next_part_ids = FIRST_PART_IDS.max(ids.saturating_mul(2));
        Self { parts: Parts::default(), next_part_ids, room: 0 }
    }

    pub(super) fn insert(&mut self, id: &IdDigest) {
        if self.room == 0 {
            self.grow();
        }
        if let Some(part) = self.parts.0.last() {
            part.insert(id);
            self.room -= 1;
        }
    }

    /// What look-ups use; must be put in force again after every insertion, as parts are added.
    pub(super) fn parts(&self) -> Parts {
        self.parts.clone()
    }

    fn grow(&mut self) {
        let ids = self.next_part_ids;
        let part = AtomicBloomFilter::with_false_pos(FALSE_POSITIVES).expected_items(ids);
        let parts = self.parts.0.iter().cloned().chain([Arc::new(part)]);
        self.parts = Parts(parts.collect());
        self.next_part_ids = ids.saturating_mul(2);
        self.room = ids;
    }
}
