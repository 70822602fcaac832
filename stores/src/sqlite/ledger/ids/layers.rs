//! The recent ids, in generations, and the filter over all older ones.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;
use metering::Unavailable;
use metering::usage::{IdDigest, Known, KnownEvent, Offset};

use super::GENERATION_IDS;
use super::filter::Parts;
use crate::sqlite::ledger::row::unavailable;

/// Ids of a stretch of the log.
pub(super) struct Generation {
    pub(super) ids: HashMap<IdDigest, KnownEvent>,
    /// The first offset of the stretch.
    pub(super) start: Offset,
    /// One past the last.
    pub(super) end: Offset,
}

impl Generation {
    fn starting_at(start: Offset) -> Self {
        Self { ids: HashMap::new(), start, end: start }
    }
}

pub(super) struct Layers(RwLock<State>);

struct State {
    /// Everything below stands in one of the layers.
    position: Offset,
    active: Generation,
    /// Full generations, oldest first, until they are indexed.
    waiting: VecDeque<Arc<Generation>>,
    /// Of every indexed id; `None` until it is complete.
    filter: Option<Parts>,
    /// Whether the index has everything that is not recent.
    index_complete: bool,
}

impl Layers {
    /// `recent_from` is where the recent ids start, `index_complete` whether the index reaches it.
    pub(super) fn new(recent_from: Offset, index_complete: bool) -> Self {
        Self(RwLock::new(State {
            position: recent_from,
            active: Generation::starting_at(recent_from),
            waiting: VecDeque::new(),
            filter: None,
            index_complete,
        }))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what memory can tell, and the ids (with their places) that the index must be asked.
    pub(super) fn look_up(&self, asked: &[IdDigest]) -> Result<LookedUp, Unavailable> {
        let state = self.read();
        let mut unsure = Vec::new();
        let mut found = Vec::with_capacity(asked.len());
        for (place, id) in asked.iter().enumerate() {
            let recent = state.recent(id);
            if recent.is_none() && state.may_be_indexed(id)? {
                unsure.push((place, *id));
            }
            found.push(recent);
        }
        Ok((Known { cursor: state.position, found }, unsure))
    }

    /// Adds the ids of the log up to `position`, which can be looked up from now on.
    pub(super) fn publish(
        &self,
        ids: impl ExactSizeIterator<Item = (IdDigest, KnownEvent)>,
        position: Offset,
    ) {
        let mut state = self.write();
        if state.active.ids.capacity() == 0 {
            // Small ledgers grow by themselves, full generations never grow under the lock.
            let full = !state.waiting.is_empty() || state.filter.is_some();
            state.active.ids.reserve(if full { GENERATION_IDS } else { ids.len() });
        }
        state.active.ids.extend(ids);
        state.active.end = position;
        state.position = position;
        if state.active.ids.len() >= GENERATION_IDS {
            state.freeze();
        }
    }

    /// How many generations wait to be indexed.
    pub(super) fn waiting(&self) -> usize {
        self.read().waiting.len()
    }

    /// How many ids are in memory only.
    pub(super) fn recent(&self) -> usize {
        let state = self.read();
        let waiting: usize = state.waiting.iter().map(|generation| generation.ids.len()).sum();
        state.active.ids.len() + waiting
    }

    /// Makes the generation still growing wait for the index; `false` when it is empty.
    pub(super) fn freeze(&self) -> bool {
        let mut state = self.write();
        let any = !state.active.ids.is_empty();
        if any {
            state.freeze();
        }
        any
    }

    /// The oldest generation that waits for the index.
    pub(super) fn oldest(&self) -> Option<Arc<Generation>> {
        self.read().waiting.front().map(Arc::clone)
    }

    /// Lets go of the oldest generation: it stands in the index and in the filter.
    pub(super) fn let_go_of_oldest(&self) {
        let gone = self.write().waiting.pop_front();
        // Freed outside the lock.
        drop(gone);
    }

    /// Where the oldest recent generation starts: the index must reach up to here.
    pub(super) fn recent_from(&self) -> Offset {
        let state = self.read();
        state.waiting.front().map_or(state.active.start, |oldest| oldest.start)
    }

    /// Puts the filter in force, or its new parts.
    pub(super) fn set_filter(&self, parts: Parts) {
        self.write().filter = Some(parts);
    }

    /// Whether everything that is not recent stands in the index.
    pub(super) fn set_index_complete(&self, complete: bool) {
        let mut state = self.write();
        state.index_complete = complete;
        if !complete {
            state.filter = None;
        }
    }
}

/// What memory knows, and what only the index can tell.
pub(super) type LookedUp = (Known, Vec<(usize, IdDigest)>);

impl State {
    fn recent(&self, id: &IdDigest) -> Option<KnownEvent> {
        let generations = self.waiting.iter().rev().map(|generation| &generation.ids);
        std::iter::once(&self.active.ids).chain(generations).find_map(|ids| ids.get(id)).copied()
    }

    fn may_be_indexed(&self, id: &IdDigest) -> Result<bool, Unavailable> {
        if !self.index_complete {
            return Err(unavailable("the index of ids is being made"));
        }
        Ok(self.filter.as_ref().is_none_or(|parts| parts.may_contain(id)))
    }

    fn freeze(&mut self) {
        let next = Generation::starting_at(self.active.end);
        self.waiting.push_back(Arc::new(std::mem::replace(&mut self.active, next)));
    }
}
