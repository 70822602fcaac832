//! Every id that was ever counted, looked up for each event at the door.
//!
//! Three layers, asked in this order:
//! 1. the *recent* ids, in memory: what was committed last ([`layers`]);
//! 2. a filter in memory that knows most new ids to be new ([`filter`]);
//! 3. the index file, to which a thread of its own moves the recent ids in large sorted chunks, so
//!    that a commit never waits for it ([`index`], [`runs`]).
//!
//! An id stands in a lower layer before it leaves the one above.

mod filter;
mod index;
mod indexer;
mod layers;
mod runs;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::usage::{CountedEvent, IdDigest, Known, KnownEvent, Offset};

use super::readers::Readers;
use super::row::unavailable;
use crate::sqlite::database::{OpenError, is_damage};
use index::Index;
use layers::Layers;

/// Ids in one generation of the recent ones. Larger ones make fewer runs to merge, smaller ones take
/// less memory and less time at start after a kill.
const GENERATION_IDS: usize = 128 * 1024;

/// Generations that may wait to be indexed; then commits wait. Each takes about 8 MB.
const WAITING_MAX: usize = 6;

/// At start: with more ids than this missing from the index, they are indexed before look-ups are
/// answered, instead of being read into memory.
const LOADED_MAX: u64 = 2 * GENERATION_IDS as u64;

/// How long a commit waits for the index, and a reader of totals for a commit to be published.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ids of one ledger. Dropping it indexes what is still recent, for a fast start.
pub(super) struct Ids {
    shared: Arc<Shared>,
    indexer: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    layers: Layers,
    readers: Readers,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    /// Everything below can be looked up.
    published: Offset,
    /// Generations not yet indexed.
    waiting: usize,
    /// The index file turned out damaged.
    damaged: bool,
    closing: bool,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the progress and wakes whoever waits for it.
    fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.changed.notify_all();
    }

    /// Waits until `done`; `false` when it took longer than [`PATIENCE`].
    fn wait(&self, done: impl Fn(&Progress) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut progress = self.progress();
        while !done(&progress) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Ids {
    /// Opens the index at `path` (made anew when it is missing, damaged or of another ledger) and
    /// reads into memory what it lacks. `ledger` reads the ledger, which must have its schema.
    pub(super) fn open(path: &Path, ledger: &Readers) -> Result<Self, OpenError> {
        // What is read here is the ledger; the index names itself.
        let sqlite = |source| OpenError::sqlite(ledger.path(), source);
        let standing = ledger.try_read(index::ledger_standing).map_err(sqlite)?;
        let (position, index) = (standing.position, Index::open(path, &standing)?);
        let missing = position.number().saturating_sub(index.indexed_to.number());
        let complete = missing <= LOADED_MAX;
        let layers = Layers::new(if complete { index.indexed_to } else { position }, complete);
        if complete {
            let from = index.indexed_to;
            let recent = ledger.try_read(|open| index::ids_between(open, from, position));
            layers.publish(recent.map_err(sqlite)?.into_iter(), position);
        }
        let waiting = layers.waiting();
        let progress = Progress { published: position, waiting, damaged: false, closing: false };
        let shared = Arc::new(Shared {
            layers,
            readers: Readers::new(index::DATABASE, path),
            progress: Mutex::new(progress),
            changed: Condvar::new(),
        });
        let (sharing, ledger) = (Arc::clone(&shared), ledger.clone());
        let indexer = std::thread::spawn(move || indexer::run(&sharing, index, &ledger));
        Ok(Self { shared, indexer: Some(indexer) })
    }

    /// Which ids are counted. Answers from memory unless an id is old or looks so.
    pub(super) async fn known(&self, asked: &[IdDigest]) -> Result<Known, Unavailable> {
        let (mut known, mut unsure) = self.shared.layers.look_up(asked)?;
        if unsure.is_empty() {
            return Ok(known);
        }
        let asked = u64::try_from(unsure.len()).unwrap_or(0);
        metrics::counter!("tokenmeter_id_index_lookups_total").increment(asked);
        unsure.sort_unstable_by_key(|(_, digest)| *digest);
        let shared = Arc::clone(&self.shared);
        let find = move |open: &_| {
            index::find(open, &unsure).inspect_err(|error| {
                if is_damage(error) {
                    shared.note(|progress| progress.damaged = true);
                }
            })
        };
        for (place, event) in self.shared.readers.read(find).await? {
            known.found[place] = Some(event);
        }
        Ok(known)
    }

    /// Waits until there is room for another commit.
    pub(super) fn wait_for_room(&self) -> Result<(), Unavailable> {
        let room = self.shared.wait(|progress| progress.waiting < WAITING_MAX);
        room.then_some(()).ok_or_else(|| unavailable("the index of ids does not keep up"))
    }

    /// What a transaction that has just been committed counted. Must be called before the commit
    /// is told to anybody.
    pub(super) fn publish(&self, counted: &[CountedEvent], position: Offset) {
        let ids = counted.iter().map(|event| {
            let content = event.admitted.content_digest;
            (event.admitted.id_digest, KnownEvent { offset: event.offset, content })
        });
        self.publish_ids(ids, position);
    }

    fn publish_ids(
        &self,
        ids: impl ExactSizeIterator<Item = (IdDigest, KnownEvent)>,
        position: Offset,
    ) {
        self.shared.layers.publish(ids, position);
        let (waiting, unindexed) = (self.shared.layers.waiting(), self.shared.layers.recent());
        #[allow(clippy::cast_precision_loss, reason = "a gauge of at most some millions")]
        metrics::gauge!("tokenmeter_unindexed_ids").set(unindexed as f64);
        self.shared.note(|progress| {
            progress.published = position;
            progress.waiting = waiting;
        });
    }

    /// Everything below can be looked up.
    pub(super) fn published(&self) -> Offset {
        self.shared.progress().published
    }

    /// Waits until everything below `position` can be looked up: a commit may be visible in the
    /// ledger a moment before it is published.
    pub(super) fn wait_for(&self, position: Offset) -> Result<(), Unavailable> {
        let published = self.shared.wait(|progress| progress.published >= position);
        published.then_some(()).ok_or_else(|| unavailable("a commit is in doubt"))
    }

    /// Publishes what the ledger holds beyond what was published: after a commit in doubt.
    pub(super) fn catch_up(&self, ledger: &Readers) -> Result<(), Unavailable> {
        let from = self.published();
        let (recent, position) = ledger.read_here(|open| {
            let position = index::ledger_standing(open)?.position;
            Ok((index::ids_between(open, from, position)?, position))
        })?;
        if position > from {
            self.publish_ids(recent.into_iter(), position);
        }
        Ok(())
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.shared.note(|progress| progress.closing = true);
        if let Some(Err(_)) = self.indexer.take().map(JoinHandle::join) {
            tracing::error!("the thread that indexes ids has panicked");
        }
    }
}
