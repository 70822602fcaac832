//! Counting one partition: read, look up, fold, commit, sync.

use std::sync::Arc;
use std::time::Duration;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::UserTotals;
use metering::time::{Period, Timestamp};
use metering::usage::{
    CommitError, Committed, Cursor, Flush, Horizon, LogRecord, Offset, OffsetRange, Partition,
    Settled, SumOverflow, Tallies, fold,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::beat::Beat;
use crate::run::{Aggregator, Stopped};
use crate::serving::Serving;
use crate::telling::Untold;
use crate::ticking::Ticking;

/// The state of one partition's task.
pub(crate) struct Counting {
    pub(crate) aggregator: Aggregator,
    pub(crate) partition: Partition,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) backoff: Backoff,
    /// Everything below is counted, as the ledger last said.
    pub(crate) cursor: Cursor,
    /// Whether the quota counter serves; before that it need not be told anything.
    pub(crate) serving: Serving,
    pub(crate) ticking: Ticking,
    beat: Beat,
    /// `None` before the first flush: it does not wait.
    pub(crate) next_flush: Option<Instant>,
    /// Where the log ended when this process was told to stop.
    drain_to: Option<Offset>,
    /// Records that were read while the flush before them was committed.
    pub(crate) ahead: Vec<LogRecord>,
    /// What the counter must be told of the last flush.
    pub(crate) untold: Option<Untold>,
}

/// What became of a flush.
enum Flushed {
    /// With what was read meanwhile.
    Committed(Committed, Pending, Vec<LogRecord>),
    /// Nothing was written.
    NotLookedUp(Unavailable),
    /// Perhaps it was committed.
    InDoubt(Unavailable, Pending),
}

/// What the counter is told once a flush is known to be committed.
struct Pending {
    started: Instant,
    range: OffsetRange,
    tallies: Tallies,
    settled: Vec<Settled>,
    users: Vec<(UserId, Period)>,
}

impl Pending {
    fn of(flush: &Flush, started: Instant) -> Self {
        Self {
            started,
            range: flush.range,
            tallies: flush.tallies,
            settled: flush.settled.clone(),
            users: flush.statistics.keys().copied().collect(),
        }
    }

    /// Shows a flush that is committed.
    fn show(&self) {
        let Self { started, range, tallies, .. } = self;
        let records = u32::try_from(range.count()).map_or(f64::MAX, f64::from);
        metrics::histogram!("tokenmeter_flush_records").record(records);
        metrics::histogram!("tokenmeter_flush_seconds").record(started.elapsed());
        for (outcome, count) in [
            ("counted", tallies.counted),
            ("duplicate", tallies.duplicates),
            ("dead_letter", tallies.dead_letters),
            ("void", tallies.void),
        ] {
            metrics::counter!("tokenmeter_events_total", "outcome" => outcome).increment(count);
        }
        if tallies.dead_letters > 0 {
            tracing::error!(count = tallies.dead_letters, start = %range.start, end = %range.end,
                "records were set aside: see the dead letters");
        }
    }
}

impl Counting {
    pub(crate) fn new(
        aggregator: Aggregator,
        partition: Partition,
        beat: Beat,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let (position, log_time, horizon) = (Offset::default(), Timestamp::MIN, Horizon::Ever);
        Self {
            backoff: Backoff::new(stopping.clone()),
            cursor: Cursor { partition, position, log_time, horizon },
            serving: Serving::default(),
            ticking: Ticking::default(),
            beat,
            next_flush: None,
            drain_to: None,
            ahead: Vec::new(),
            untold: None,
            aggregator,
            partition,
            stopping,
        }
    }

    /// Until shutdown, or until a person must look.
    pub(crate) async fn run(mut self) -> Result<(), Stopped> {
        let counted = self.count_all().await;
        if let Err(stopped) = &counted {
            tracing::error!(partition = %self.partition, error = %stopped, "counting has stopped");
            self.aggregator.progress.stopped(self.partition, stopped);
        }
        counted
    }

    async fn count_all(&mut self) -> Result<(), Stopped> {
        while self.start().await? {
            match self.count_on().await {
                // Whoever counted meanwhile has committed the same rows.
                Err(lost @ Stopped::Lost { .. }) => {
                    metrics::counter!("tokenmeter_partitions_lost_total").increment(1);
                    self.ahead.clear();
                    self.backoff.pause("commit", &Unavailable::new("ledger", lost)).await;
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    async fn count_on(&mut self) -> Result<(), Stopped> {
        loop {
            let stopping = self.is_stopping();
            match self.next_records().await {
                Err(error) if stopping => {
                    tracing::warn!(%error, "stopped before the log was drained");
                    return Ok(());
                }
                Err(error) => self.backoff.pause("read", &error).await,
                Ok(records) if !records.is_empty() => {
                    self.ticking.came();
                    let (started, count) = (Instant::now(), records.len());
                    self.count(records).await?;
                    self.next_flush = Some(self.beat.after(started, Instant::now(), count));
                }
                Ok(_) => {}
            }
            // With a whole flush at hand the next one is counted at once.
            if stopping || self.ahead.len() < self.whole_flush() {
                self.tell_now().await;
            }
            if stopping && self.is_drained().await {
                return Ok(());
            }
            self.go_on_opening().await;
            self.tick().await;
        }
    }

    /// Whether everything is counted that was in the log when this process was told to stop. Others may
    /// go on to write.
    async fn is_drained(&mut self) -> bool {
        if self.drain_to.is_none() {
            self.drain_to = self.aggregator.source.end(self.partition).await.ok();
        }
        self.drain_to.is_some_and(|end| end <= self.cursor.position)
    }

    /// Takes over from whoever counted before; `false` when told to stop meanwhile.
    async fn start(&mut self) -> Result<bool, Stopped> {
        loop {
            let taken = self.take_over().await;
            match taken {
                Ok((cursor, end)) if cursor.position > end => {
                    let (partition, cursor) = (self.partition, cursor.position);
                    return Err(Stopped::AnotherLog { partition, end, cursor });
                }
                Ok((cursor, end)) => {
                    let waiting = end.number().saturating_sub(cursor.position.number());
                    tracing::info!(partition = %self.partition, cursor = %cursor.position, waiting,
                        "counting begins");
                    self.backoff.reset();
                    self.advance(cursor);
                    self.take_over_counter().await;
                    return Ok(true);
                }
                Err(_) if self.is_stopping() => return Ok(false),
                Err(error) => self.backoff.pause("take over", &error).await,
            }
        }
    }

    async fn take_over(&self) -> Result<(Cursor, Offset), Unavailable> {
        let cursor = self.aggregator.ledger.take_over(self.partition).await?;
        let end = self.aggregator.source.end(self.partition).await?;
        Ok((cursor, end))
    }

    /// Counts `records`, which begin at the cursor. On a failing store nothing, or all of them. The
    /// counter is told of the flush before meanwhile: the two wait for different servers.
    async fn count(&mut self, records: Vec<LogRecord>) -> Result<(), Stopped> {
        let untold = self.untold.take();
        let (flushed, told) = tokio::join!(self.flush(records), self.tell(untold));
        self.after_telling(told);
        match flushed? {
            Flushed::Committed(committed, pending, ahead) => {
                self.ahead = ahead;
                self.committed(committed, pending);
                Ok(())
            }
            Flushed::NotLookedUp(error) => {
                self.backoff.pause("look up", &error).await;
                self.is_still_here().await
            }
            Flushed::InDoubt(error, pending) => {
                self.backoff.pause("commit", &error).await;
                self.resolve_doubt(pending).await
            }
        }
    }

    /// Looks up, folds, commits; reads on meanwhile.
    async fn flush(&self, records: Vec<LogRecord>) -> Result<Flushed, Stopped> {
        let started = Instant::now();
        let whole = self.whole_flush();
        let is_whole = records.len() >= whole;
        let flush = match self.fold(records).await? {
            Ok(flush) => flush,
            Err(error) => return Ok(Flushed::NotLookedUp(error)),
        };
        let pending = Pending::of(&flush, started);
        let ahead = async {
            if !is_whole {
                return Vec::new();
            }
            // A failure shows again when they are asked for in earnest.
            let from = pending.range.end;
            self.read(from, whole, Duration::ZERO).await.unwrap_or_default()
        };
        let (committed, ahead) = tokio::join!(self.aggregator.ledger.commit(flush), ahead);
        match committed {
            Ok(committed) => {
                pending.show();
                Ok(Flushed::Committed(committed, pending, ahead))
            }
            Err(CommitError::Lost { partition, expected, found }) => {
                Err(Stopped::Lost { partition, expected, found })
            }
            Err(CommitError::Unavailable(error)) => Ok(Flushed::InDoubt(error, pending)),
        }
    }

    /// After a look-up that failed. A commit that an earlier task of this partition left behind may
    /// have moved the ledger on, and then no look-up from here succeeds any more.
    async fn is_still_here(&self) -> Result<(), Stopped> {
        let (partition, expected) = (self.partition, self.cursor.position);
        match self.aggregator.ledger.take_over(partition).await {
            Ok(Cursor { position: found, .. }) if found != expected => {
                Err(Stopped::Lost { partition, expected, found })
            }
            // The records are read again; what failed shows again.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// What the records add to the ledger; the inner error is that of the look-up.
    async fn fold(&self, records: Vec<LogRecord>) -> Result<Result<Flush, Unavailable>, Stopped> {
        let (partition, horizon) = (self.partition, self.cursor.horizon);
        let seen = match self.aggregator.ledger.seen(partition, horizon, &records).await {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(error)),
        };
        // Some milliseconds of arithmetic: not on a thread that answers requests.
        let rules = Arc::clone(&self.aggregator.alert_rules);
        let folding = move || {
            let mut flush = fold(partition, horizon, records, &seen)?;
            flush.watched = rules.watched(&flush);
            Ok::<_, SumOverflow>(flush)
        };
        match tokio::task::spawn_blocking(folding).await {
            Ok(folded) => Ok(Ok(folded?)),
            Err(_) => Err(Stopped::Panicked),
        }
    }

    fn committed(&mut self, committed: Committed, pending: Pending) {
        self.backoff.reset();
        metrics::counter!("tokenmeter_alerts_raised_total").increment(committed.alerts);
        self.advance(committed.cursor);
        self.untold = Some(Untold { totals: committed.totals, settled: pending.settled });
    }

    /// After a commit that may have happened: where the cursor stands tells whether it did.
    async fn resolve_doubt(&mut self, pending: Pending) -> Result<(), Stopped> {
        loop {
            match self.settled_doubt(&pending).await {
                Ok((cursor, totals)) if cursor.position == pending.range.end => {
                    pending.show();
                    // How many alerts it raised is not known any more.
                    let committed = Committed { cursor, totals, alerts: 0 };
                    self.committed(committed, pending);
                    return Ok(());
                }
                // It did not: the records are read again.
                Ok((cursor, _)) if cursor.position == pending.range.start => return Ok(()),
                Ok((cursor, _)) => {
                    let (partition, expected) = (self.partition, pending.range.start);
                    return Err(Stopped::Lost { partition, expected, found: cursor.position });
                }
                // What was committed is told to nobody any more: the process ends.
                Err(_) if self.is_stopping() => return Ok(()),
                Err(error) => self.backoff.pause("take over", &error).await,
            }
        }
    }

    async fn settled_doubt(
        &self,
        pending: &Pending,
    ) -> Result<(Cursor, Vec<UserTotals>), Unavailable> {
        let cursor = self.aggregator.ledger.take_over(self.partition).await?;
        if cursor.position != pending.range.end {
            return Ok((cursor, Vec::new()));
        }
        Ok((cursor, self.totals(&pending.users).await?))
    }

    /// What the ledger holds of these users now.
    pub(crate) async fn totals(
        &self,
        users: &[(UserId, Period)],
    ) -> Result<Vec<UserTotals>, Unavailable> {
        let found = self.aggregator.lookup.totals(users).await?;
        let users = users.iter().zip(found);
        Ok(users
            .map(|(&(user_id, period), at)| UserTotals { user_id, period, totals: at.totals })
            .collect())
    }

    fn advance(&mut self, cursor: Cursor) {
        self.cursor = cursor;
        let now = self.aggregator.clock.now();
        self.aggregator.progress.advanced(self.partition, cursor.position, now);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
