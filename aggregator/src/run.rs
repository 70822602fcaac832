//! The aggregator: one task for each partition that is ours, and the housekeeping beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metering::quota::QuotaCounter;
use metering::time::Clock;
use metering::usage::{
    AlertRules, EventSource, LedgerLookup, Offset, Partition, SumOverflow, UsageLedger,
};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::beat::Beat;
use crate::counting::Counting;
use crate::progress::Progress;

/// What counting needs.
#[derive(Clone)]
pub struct Aggregator {
    /// What is to be counted.
    pub source: Arc<dyn EventSource>,
    /// Where it is counted to.
    pub ledger: Arc<dyn UsageLedger>,
    /// Which alerts a commit may raise.
    pub alert_rules: Arc<AlertRules>,
    /// What was counted before.
    pub lookup: Arc<dyn LedgerLookup>,
    /// Who is told.
    pub counter: Arc<dyn QuotaCounter>,
    /// For readiness and for the age of what may be trimmed; counting itself knows no clock.
    pub clock: Arc<dyn Clock>,
    /// Where counting stands; shared with readiness.
    pub progress: Arc<Progress>,
    /// How long counted records stay in the log. A ledger that is not fsynced at each commit is
    /// made again from them after a loss of power, so never shorter than some minutes.
    pub log_retention: Duration,
    /// From one flush to the next, unless a whole one waits: a flush of few records costs almost as
    /// much as one of many. An event after a quiet moment does not wait.
    pub flush_interval: Duration,
}

/// A partition is counted no more, and a person must look. What came before is safe.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stopped {
    /// The ledger has counted records that the log does not have.
    #[error(
        "the log of partition {partition} ends at {end}, but it is counted up to {cursor}: this is \
         another log, or an older copy of it"
    )]
    AnotherLog {
        /// Which partition.
        partition: Partition,
        /// Where the log ends.
        end: Offset,
        /// Where the ledger stands.
        cursor: Offset,
    },
    /// The cursor moved, and not by this process.
    #[error(
        "partition {partition} stands at {found}, not at {expected}: another process counts it"
    )]
    Lost {
        /// Which partition.
        partition: Partition,
        /// Where this process left it.
        expected: Offset,
        /// Where it stands.
        found: Offset,
    },
    /// See [`SumOverflow`].
    #[error(transparent)]
    Overflow(#[from] SumOverflow),
    /// A defect of this program; the log has the details.
    #[error("the task that counted a partition panicked")]
    Panicked,
}

impl Aggregator {
    /// Counts until `shutdown`, then what is in the log by then, and returns.
    ///
    /// Stores that fail are asked again, for as long as it takes. Admissions begin (the counter is
    /// opened) when everything in the log is counted.
    ///
    /// # Errors
    /// [`Stopped`], once no partition is counted any more: the first reason. Readiness has failed
    /// since then.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Stopped> {
        let (stop, stopping) = watch::channel(false);
        let mut owned = Owned {
            aggregator: &self,
            beat: Beat::from_now_on(self.flush_interval),
            stopping,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
        };
        let mut shutdown = pin!(shutdown);
        let mut housekeeping = pin!(self.keep_house());
        let (mut assigned, mut result) = (BTreeSet::new(), Ok(()));
        loop {
            let draining = *stop.borrow();
            if owned.tasks.is_empty() && (draining || !assigned.is_empty()) {
                return result;
            }
            tokio::select! {
                () = &mut shutdown, if !draining => drop(stop.send_replace(true)),
                now = self.source.assigned(&assigned), if !draining => {
                    owned.change_to(&now);
                    assigned = now;
                }
                Some(ended) = owned.tasks.join_next() => match ended {
                    Ok(counted) => result = result.and(counted),
                    Err(error) if error.is_cancelled() => {}
                    Err(_) => result = result.and(Err(self.panicked())),
                },
                never = &mut housekeeping => match never {},
            }
        }
    }

    fn panicked(&self) -> Stopped {
        for partition in self.progress.partitions().into_keys() {
            self.progress.stopped(partition, &Stopped::Panicked);
        }
        Stopped::Panicked
    }
}

/// The partitions of this process, each counted by a task of its own.
struct Owned<'a> {
    aggregator: &'a Aggregator,
    beat: Beat,
    stopping: watch::Receiver<bool>,
    tasks: JoinSet<Result<(), Stopped>>,
    running: BTreeMap<Partition, AbortHandle>,
}

impl Owned<'_> {
    /// What is not ours any more is let go of at once: whatever its task has begun, the ledger takes
    /// only from one owner.
    fn change_to(&mut self, assigned: &BTreeSet<Partition>) {
        let progress = &self.aggregator.progress;
        progress.assigned();
        self.running.retain(|partition, task| {
            let stays = assigned.contains(partition);
            if !stays {
                task.abort();
                progress.left(*partition);
                self.aggregator.ledger.release(*partition);
                tracing::info!(%partition, "another process counts this partition now");
            }
            stays
        });
        for partition in assigned {
            if !self.running.contains_key(partition) {
                progress.starts(*partition);
                let (aggregator, stopping) = (self.aggregator.clone(), self.stopping.clone());
                let counting = Counting::new(aggregator, *partition, self.beat, stopping);
                self.running.insert(*partition, self.tasks.spawn(counting.run()));
            }
        }
    }
}
