//! The thread that moves recent ids into the index file, and fills the filter.

use std::sync::PoisonError;
use std::time::Duration;

use metering::usage::Offset;

use super::filter::Filter;
use super::index::{Index, LedgerStanding, ledger_standing};
use super::layers::Generation;
use super::runs::Entry;
use super::{Shared, index};
use crate::sqlite::database::is_damage;
use crate::sqlite::ledger::readers::{Readers, sqlite_error};

/// Offsets that are indexed at once when the index is made from the ledger: 40 MB of memory.
const REBUILT_AT_ONCE: u64 = 1 << 20;

/// Steps of merges for each generation that is indexed: each moves two to four times as many ids, and
/// every id is merged once for each size of runs. So merges keep up, and no generation waits for long.
const MERGE_STEPS: usize = 2;

/// Between tries after an error: whatever it is (no space, a lock) takes longer to go away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the indexer does next.
enum Step {
    /// The index lacks what is not recent any more, or is damaged: read it from the ledger.
    CatchUp,
    /// The filter does not hold what the index holds.
    FillFilter,
    /// Recent ids wait.
    Index,
    /// Nothing waits, and the index may have runs to merge.
    Merge,
    Stop,
}

struct Indexer<'a> {
    shared: &'a Shared,
    ledger: &'a Readers,
    /// `None` only when making it anew has failed: tried again.
    index: Option<Index>,
    filter: Option<Filter>,
    /// Whether there may be something to merge.
    merging: bool,
    /// What the index must reach before it is complete.
    complete_at: Offset,
}

/// Runs until the ids are closed and everything recent is indexed.
pub(super) fn run(shared: &Shared, index: Index, ledger: &Readers) {
    let complete_at = shared.layers.recent_from();
    let mut indexer =
        Indexer { shared, ledger, index: Some(index), filter: None, merging: true, complete_at };
    loop {
        let done = match indexer.next_step() {
            Step::CatchUp => indexer.catch_up(),
            Step::FillFilter => indexer.fill_filter(),
            Step::Index => indexer.index_oldest(),
            Step::Merge => indexer.merge(),
            Step::Stop => {
                // The index is closed last, and leaves no write-ahead log behind.
                shared.readers.close_idle();
                return;
            }
        };
        if let Err(error) = done
            && !indexer.go_on_after(&error)
        {
            return;
        }
    }
}

impl Indexer<'_> {
    /// Waits until there is something to be done.
    fn next_step(&self) -> Step {
        let mut progress = self.shared.progress();
        loop {
            let behind = self.index.as_ref().is_none_or(|i| i.indexed_to < self.complete_at);
            if progress.damaged || behind {
                // What is missing is found missing again at the next start.
                return if progress.closing { Step::Stop } else { Step::CatchUp };
            }
            if self.filter.is_none() && !progress.closing {
                return Step::FillFilter;
            }
            if progress.waiting > 0 {
                return Step::Index;
            }
            if progress.closing {
                drop(progress);
                return if self.shared.layers.freeze() { Step::Index } else { Step::Stop };
            }
            if self.merging {
                return Step::Merge;
            }
            let woken = self.shared.changed.wait(progress);
            progress = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads the ids of one more stretch from the ledger.
    fn catch_up(&mut self) -> rusqlite::Result<()> {
        let standing = self.standing()?;
        if std::mem::take(&mut self.shared.progress().damaged) || self.index.is_none() {
            self.make_anew(&standing)?;
        }
        let Some(index) = &mut self.index else { return Ok(()) };
        self.merging = true;
        let from = index.indexed_to;
        let end = from.plus(REBUILT_AT_ONCE).min(self.complete_at);
        let ids = self.ledger.try_read(|open| index::ids_between(open, from, end))?;
        add_sorted(index, ids, end)?;
        if end == self.complete_at {
            self.shared.layers.set_index_complete(true);
            tracing::info!(ids = index.ids, "the index of ids is complete");
        }
        Ok(())
    }

    fn standing(&self) -> rusqlite::Result<LedgerStanding> {
        self.ledger.try_read(ledger_standing)
    }

    fn make_anew(&mut self, standing: &LedgerStanding) -> rusqlite::Result<()> {
        tracing::warn!("the index of ids is made anew");
        self.shared.layers.set_index_complete(false);
        self.filter = None;
        // What is recent now stays so: only what was in the index is read again.
        self.complete_at = self.shared.layers.recent_from();
        self.shared.readers.close_idle();
        let path = self.shared.readers.path();
        drop(self.index.take());
        index::remove(path);
        self.index = Some(Index::open(path, standing).map_err(sqlite_error)?);
        Ok(())
    }

    /// Reads the whole index once; until then each look-up of an older id asks it.
    fn fill_filter(&mut self) -> rusqlite::Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        let mut filter = Filter::sized_for(usize::try_from(index.ids).unwrap_or(usize::MAX));
        let mut closing = false;
        index.scan(|id| {
            filter.insert(id);
            closing = self.shared.progress().closing;
            !closing
        })?;
        if closing {
            return Ok(());
        }
        self.shared.layers.set_filter(filter.parts());
        self.filter = Some(filter);
        Ok(())
    }

    fn index_oldest(&mut self) -> rusqlite::Result<()> {
        let (Some(index), Some(generation)) = (&mut self.index, self.shared.layers.oldest()) else {
            return Ok(());
        };
        let Generation { ids, end, .. } = &*generation;
        add_sorted(index, ids.iter().map(|(id, event)| (*id, *event)).collect(), *end)?;
        if let Some(filter) = &mut self.filter {
            ids.keys().for_each(|id| filter.insert(id));
            self.shared.layers.set_filter(filter.parts());
        }
        self.shared.layers.let_go_of_oldest();
        self.complete_at = *end;
        drop(generation);
        let waiting = self.shared.layers.waiting();
        self.shared.note(|progress| progress.waiting = waiting);
        if self.shared.progress().closing { Ok(()) } else { self.merge() }
    }

    /// Some steps: whoever waits comes first.
    fn merge(&mut self) -> rusqlite::Result<()> {
        let Some(index) = &mut self.index else { return Ok(()) };
        self.merging = true;
        for _ in 0..MERGE_STEPS {
            self.merging = self.merging && index.merge_some()?;
        }
        Ok(())
    }

    /// `false`: stop, what is missing is read from the ledger at the next start.
    fn go_on_after(&self, error: &rusqlite::Error) -> bool {
        tracing::error!(%error, "ids cannot be indexed");
        metrics::counter!("tokenmeter_id_index_errors_total").increment(1);
        let mut progress = self.shared.progress();
        progress.damaged |= is_damage(error);
        if progress.closing {
            return false;
        }
        // Woken early by commits: they wait for room soon enough.
        let waited = self.shared.changed.wait_timeout(progress, RETRY_AFTER);
        drop(waited);
        true
    }
}

fn add_sorted(index: &mut Index, mut ids: Vec<Entry>, end: Offset) -> rusqlite::Result<()> {
    ids.sort_unstable_by_key(|(id, _)| *id);
    index.add(&ids, end)
}
