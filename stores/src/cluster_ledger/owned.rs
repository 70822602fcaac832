//! What this process remembers of the partitions that it counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metering::Unavailable;
use metering::quota::MARGIN;
use metering::time::Timestamp;
use metering::usage::{CountedEvent, Cursor, HORIZON_MAX, Horizon, Partition};
use tokio::time::Instant;

use super::counted_ids::{BYTES_PER_ID, CountedIds};
use super::running_totals::RunningTotals;
use super::stored::unavailable;

/// The horizon is not made shorter than this, however full the memory is: a retry follows within.
const HORIZON_MIN: Duration = Duration::from_secs(60);

/// A partition that nobody has asked about for so long is counted elsewhere: owners of idle ones
/// append ticks.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// A flush that is longer under way has failed.
const FOLDING_MAX: Duration = Duration::from_secs(2);

/// One partition from its take-over on.
pub(super) struct Owned {
    pub(super) cursor: Cursor,
    /// From a commit that failed until the next take-over nobody knows where the partition stands.
    pub(super) in_doubt: bool,
    pub(super) ids: CountedIds,
    pub(super) totals: RunningTotals,
    /// Since when a flush of it is under way, if one is: a commit will come.
    folding_since: Option<Instant>,
    used_at: Instant,
}

impl Owned {
    pub(super) fn new(cursor: Cursor, ids: CountedIds) -> Self {
        let totals = RunningTotals::default();
        let used_at = Instant::now();
        Self { cursor, in_doubt: false, ids, totals, folding_since: None, used_at }
    }

    /// How far back ids are known, for any record that may still come.
    fn reach(&self) -> Duration {
        if self.ids.floor() == Timestamp::MIN {
            return HORIZON_MAX;
        }
        self.cursor.log_time.since(self.ids.floor().plus(MARGIN)).min(HORIZON_MAX)
    }
}

/// All partitions of this process, and the memory that they share.
pub(super) struct Partitions {
    owned: Mutex<BTreeMap<Partition, Arc<Mutex<Owned>>>>,
    ids: AtomicUsize,
    ids_max: usize,
}

/// The length of a horizon.
pub(super) fn length(horizon: Horizon) -> Duration {
    match horizon {
        Horizon::Within(length) => length.min(HORIZON_MAX),
        Horizon::Ever => HORIZON_MAX,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partitions {
    pub(super) fn new(memory_bytes_max: usize) -> Self {
        let ids_max = (memory_bytes_max / BYTES_PER_ID).max(1);
        Self { owned: Mutex::default(), ids: AtomicUsize::new(0), ids_max }
    }

    /// How many more ids may be loaded so that there is room for new ones.
    pub(super) fn room(&self) -> usize {
        (self.ids_max / 2).saturating_sub(self.ids.load(Ordering::Relaxed))
    }

    /// How many partitions are counted here.
    pub(super) fn count(&self) -> usize {
        lock(&self.owned).len()
    }

    /// Works on one partition.
    ///
    /// # Errors
    /// [`Unavailable`]: it was not taken over, or a commit of it is in doubt.
    pub(super) fn with<T>(
        &self,
        partition: Partition,
        work: impl FnOnce(&mut Owned) -> T,
    ) -> Result<T, Unavailable> {
        let owned = lock(&self.owned).get(&partition).cloned();
        let owned = owned.ok_or_else(|| not_owned(partition))?;
        let mut owned = lock(&owned);
        if owned.in_doubt {
            return Err(not_owned(partition));
        }
        owned.used_at = Instant::now();
        let before = owned.ids.len();
        let done = work(&mut owned);
        self.resized(before, owned.ids.len());
        Ok(done)
    }

    /// A flush of it is under way.
    pub(super) fn folds(&self, partition: Partition) -> Result<(), Unavailable> {
        self.with(partition, |owned| owned.folding_since = Some(Instant::now()))
    }

    /// The flush has come.
    pub(super) fn folded(&self, partition: Partition) {
        // Not ours any more: then nobody waits for it either.
        drop(self.with(partition, |owned| owned.folding_since = None));
    }

    /// Whether a commit is to be expected soon.
    pub(super) fn is_any_folding(&self) -> bool {
        let all = lock(&self.owned);
        all.values()
            .any(|one| lock(one).folding_since.is_some_and(|since| since.elapsed() < FOLDING_MAX))
    }

    /// Puts a partition in place; forgets those that nobody counts here any more.
    pub(super) fn put(&self, new: Owned) {
        let mut all = lock(&self.owned);
        self.resized(0, new.ids.len());
        let old = all.insert(new.cursor.partition, Arc::new(Mutex::new(new)));
        let idle = all.extract_if(.., |_, one| lock(one).used_at.elapsed() > FORGOTTEN_AFTER);
        for one in idle.map(|(_, one)| one).chain(old) {
            self.resized(lock(&one).ids.len(), 0);
        }
    }

    /// Goes on with what is known already if the partition still stands where it is known to.
    pub(super) fn resume(&self, cursor: Cursor) -> bool {
        let owned = lock(&self.owned).get(&cursor.partition).cloned();
        let Some(owned) = owned else { return false };
        let mut owned = lock(&owned);
        let same = owned.cursor == cursor;
        if same {
            (owned.in_doubt, owned.used_at) = (false, Instant::now());
            owned.folding_since = None;
            owned.totals = RunningTotals::default();
        }
        same
    }

    /// Summary rows were replaced: their totals are read back.
    pub(super) fn forget_totals(&self) {
        for owned in lock(&self.owned).values() {
            lock(owned).totals = RunningTotals::default();
        }
    }

    /// After a commit that failed: nothing but a take-over may follow.
    pub(super) fn doubt(&self, partition: Partition) {
        if let Some(owned) = lock(&self.owned).get(&partition) {
            lock(owned).in_doubt = true;
        }
    }

    /// Somebody else counts it.
    pub(super) fn drop_one(&self, partition: Partition) {
        if let Some(owned) = lock(&self.owned).remove(&partition) {
            self.resized(lock(&owned).ids.len(), 0);
        }
    }

    /// After a commit: the partition stands at `cursor`, and these were counted.
    pub(super) fn committed(
        &self,
        cursor: Cursor,
        counted: &[CountedEvent],
        totals: RunningTotals,
    ) -> Result<(), Unavailable> {
        let crowded = self.ids.load(Ordering::Relaxed) > self.ids_max / 2;
        self.with(cursor.partition, |owned| {
            (owned.cursor, owned.totals) = (cursor, totals);
            for CountedEvent { log_time, admitted, .. } in counted {
                owned.ids.insert(admitted.id_digest, admitted.content_digest, *log_time);
            }
            // While there is room, more is kept than is needed: so the horizon may grow again.
            let kept = if crowded { length(cursor.horizon) } else { HORIZON_MAX };
            owned.ids.forget_before(cursor.log_time.minus(kept + MARGIN));
            let partition = cursor.partition.to_string();
            metrics::gauge!("tokenmeter_duplicate_horizon_seconds", "partition" => partition)
                .set(length(cursor.horizon).as_secs_f64());
        })
    }

    /// See `UsageLedger::horizon`.
    pub(super) fn horizon(&self, partition: Partition, now_in_force: Horizon) -> Horizon {
        let now = length(now_in_force);
        let (full, ids) = (self.is_full(), self.ids.load(Ordering::Relaxed));
        let bearable = self.with(partition, |owned| {
            if full {
                let held = owned.cursor.log_time.since(owned.ids.oldest());
                return (held.min(now) * 3 / 4).max(HORIZON_MIN).min(now);
            }
            let reach = owned.reach();
            // Not for a little: each change is a record in the log.
            let grows = ids < self.ids_max / 2 && (reach >= now * 5 / 4 || reach == HORIZON_MAX);
            if grows { reach.max(now) } else { now }
        });
        Horizon::Within(bearable.unwrap_or(now))
    }

    fn is_full(&self) -> bool {
        self.ids.load(Ordering::Relaxed) > self.ids_max - self.ids_max / 8
    }

    fn resized(&self, before: usize, after: usize) {
        self.ids.fetch_add(after, Ordering::Relaxed);
        let sum = self.ids.fetch_sub(before, Ordering::Relaxed).saturating_sub(before);
        let shown = u32::try_from(sum).unwrap_or(u32::MAX);
        metrics::gauge!("tokenmeter_remembered_ids").set(shown);
    }
}

fn not_owned(partition: Partition) -> Unavailable {
    unavailable(format!("partition {partition} must be taken over first"))
}
