//! Where counting stands, for readiness.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use edge::{Condition, HealthCheck};
use metering::time::{Clock, Timestamp};
use metering::usage::{Offset, Partition};

use crate::run::Stopped;

/// Not ready when records wait and the cursor has stood still for longer. Shorter, and one slow
/// commit takes the process out of service; longer, and admissions lean on stale totals.
const STALL_MAX: Duration = Duration::from_secs(15);

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Everything below is counted; `None` before the ledger was asked.
    pub cursor: Option<Offset>,
    /// Where the log ended when it was last looked at.
    pub end: Offset,
    /// When the cursor last moved.
    pub advanced_at: Timestamp,
    /// The log time of the oldest record that waits.
    pub oldest_waiting: Option<Timestamp>,
    /// Whether the counter was opened: everything in the log was counted once.
    pub serving: bool,
    /// Why it is counted no more.
    pub stopped: Option<String>,
}

/// Where counting stands, partition by partition. Written by the aggregator; the process is ready
/// only while it makes progress.
pub struct Progress {
    clock: Arc<dyn Clock>,
    partitions: Mutex<BTreeMap<Partition, PartitionProgress>>,
    assigned: AtomicBool,
}

impl Progress {
    /// Nothing is counted yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, partitions: Mutex::default(), assigned: AtomicBool::new(false) }
    }

    /// Every partition of this process.
    pub fn partitions(&self) -> BTreeMap<Partition, PartitionProgress> {
        self.lock().clone()
    }

    /// A partition that another process counts: it stands at `cursor`, for whoever only looks.
    pub fn stands_at(&self, partition: Partition, cursor: Offset) {
        self.starts(partition);
        self.advanced(partition, cursor, self.clock.now());
    }

    /// How many partitions this process counts.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn starts(&self, partition: Partition) {
        self.lock().insert(partition, PartitionProgress::default());
    }

    pub(crate) fn advanced(&self, partition: Partition, cursor: Offset, now: Timestamp) {
        self.change(partition, |progress| {
            progress.cursor = Some(cursor);
            progress.end = progress.end.max(cursor);
            progress.advanced_at = now;
            if progress.end == cursor {
                progress.oldest_waiting = None;
            }
        });
    }

    pub(crate) fn serves(&self, partition: Partition, serving: bool) {
        self.change(partition, |progress| progress.serving = serving);
    }

    /// The partition belongs to another process now.
    pub(crate) fn left(&self, partition: Partition) {
        self.lock().remove(&partition);
    }

    /// This process has been told for the first time which partitions are its own.
    pub(crate) fn assigned(&self) {
        self.assigned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self, partition: Partition, reason: &Stopped) {
        self.change(partition, |progress| progress.stopped = Some(reason.to_string()));
    }

    /// The log was looked at: where it ends, and the log time of the record at `cursor`.
    pub(crate) fn seen(
        &self,
        partition: Partition,
        cursor: Offset,
        end: Offset,
        oldest: Option<Timestamp>,
    ) {
        self.change(partition, |progress| {
            progress.end = progress.end.max(end);
            if progress.cursor == Some(cursor) {
                progress.oldest_waiting = oldest;
            }
        });
    }

    /// Nothing when the partition is not this process's any more: the task that counted it may still be
    /// on its way to its end.
    fn change(&self, partition: Partition, change: impl FnOnce(&mut PartitionProgress)) {
        if let Some(progress) = self.lock().get_mut(&partition) {
            change(progress);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Partition, PartitionProgress>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartitionProgress {
    /// How many records wait to be counted.
    pub fn waiting(&self) -> u64 {
        let counted = self.cursor.unwrap_or_default();
        self.end.number().saturating_sub(counted.number())
    }

    /// Why this partition makes no progress, if so.
    fn fault(&self, now: Timestamp) -> Option<String> {
        if let Some(reason) = &self.stopped {
            return Some(format!("counting has stopped: {reason}"));
        }
        let waiting = self.waiting();
        if let Some(oldest) = self.oldest_waiting
            && now.since(oldest.max(self.advanced_at)) > STALL_MAX
        {
            let seconds = now.since(self.advanced_at).as_secs();
            return Some(format!("{waiting} records wait, none was counted for {seconds} s"));
        }
        if !self.serving {
            return Some(format!("{waiting} records are counted before admissions begin"));
        }
        None
    }
}

#[async_trait]
impl HealthCheck for Progress {
    fn name(&self) -> &'static str {
        "aggregator"
    }

    async fn check(&self) -> Condition {
        let (partitions, now) = (self.partitions(), self.clock.now());
        if partitions.is_empty() && !self.assigned.load(Ordering::Relaxed) {
            return Condition::Failed("counting has not begun".to_owned());
        }
        let fault = partitions.values().find_map(|progress| progress.fault(now));
        fault.map_or(Condition::Good, Condition::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::time::ManualClock;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    async fn check(progress: &Progress) -> Result<(), String> {
        match progress.check().await {
            Condition::Good => Ok(()),
            Condition::Degraded(detail) | Condition::Failed(detail) => Err(detail),
        }
    }

    #[tokio::test]
    async fn ready_only_while_counting_makes_progress() {
        let clock = Arc::new(ManualClock::at(at(1000)));
        let progress = Progress::new(clock.clone());
        let (partition, five, nine) = (Partition::SINGLE, Offset::new(5), Offset::new(9));
        assert_eq!(check(&progress).await, Err("counting has not begun".to_owned()));
        progress.starts(partition);
        progress.advanced(partition, five, at(1000));
        progress.seen(partition, five, nine, Some(at(990)));
        let starting = "4 records are counted before admissions begin";
        assert_eq!(check(&progress).await, Err(starting.to_owned()));
        progress.serves(partition, true);
        assert_eq!(check(&progress).await, Ok(()));

        clock.set(at(1016));
        let stalled = "4 records wait, none was counted for 16 s";
        assert_eq!(check(&progress).await, Err(stalled.to_owned()));
        progress.advanced(partition, nine, at(1016));
        clock.set(at(2000));
        assert_eq!(check(&progress).await, Ok(()), "an idle partition is no stalled one");

        progress.seen(partition, nine, Offset::new(10), Some(at(1999)));
        assert_eq!(check(&progress).await, Ok(()), "the record has just come");
        progress.stopped(partition, &Stopped::Panicked);
        assert!(check(&progress).await.unwrap_err().starts_with("counting has stopped"));
    }

    #[tokio::test]
    async fn a_partition_that_left_is_not_brought_back_by_who_counted_it() {
        let progress = Progress::new(Arc::new(ManualClock::at(at(1000))));
        progress.assigned();
        progress.starts(Partition::SINGLE);
        progress.left(Partition::SINGLE);
        progress.advanced(Partition::SINGLE, Offset::new(1), at(1000));
        progress.serves(Partition::SINGLE, false);
        assert_eq!(check(&progress).await, Ok(()));
        assert!(progress.partitions().is_empty());
    }
}
