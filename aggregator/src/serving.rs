//! From the moment that a partition is ours until its admissions are open, and what is left to do
//! when somebody else had opened them.

use std::collections::BTreeSet;
use std::time::Duration;

use metering::Unavailable;
use metering::quota::Synced;
use metering::usage::{LogRecord, Offset, OffsetRange, Payload, Settled, is_void};
use tokio::time::Instant;

use crate::counting::Counting;

/// Records between what the counter knows and the cursor, beyond which it is opened anew instead of
/// brought up to date: both are right, and opening anew costs some seconds of refusals.
const CATCH_UP_RECORDS_MAX: u64 = 300_000;

/// Read at a time while catching up.
const CATCH_UP_RECORDS: usize = 30_000;

/// A store that is just starting fails for some seconds (these tries take about six); to open anew
/// costs much longer. Counting waits meanwhile.
const CATCH_UP_TRIES: u32 = 7;

/// Between two tries to close or open. Counting goes on meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait for records that the log holds already, on the way to open admissions.
const COUNTING_PATIENCE: Duration = Duration::from_millis(100);

/// Whether the quota counter admits to a partition, and how far that is from being so.
#[derive(Debug, Default)]
pub(crate) enum Serving {
    /// It does not, or under a name that is not ours.
    #[default]
    No,
    /// Something failed; the same again at that time.
    NotBefore(Instant),
    /// Closed by us. What was let in before may reach the log until then.
    Closed(Instant),
    /// The log ended here when nothing of the kind could come any more: open once that is counted.
    OpensAt(Offset),
    /// It does.
    Open,
}

impl Serving {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Where to begin again at `time` after a step that failed. What is closed stays so: to close it
    /// anew would cost the wait anew.
    fn after_failure(&self, time: Instant) -> Self {
        match self {
            Self::No | Self::NotBefore(_) => Self::NotBefore(time),
            Self::Closed(_) | Self::OpensAt(_) | Self::Open => Self::Closed(time),
        }
    }

    /// How long there is nothing to do here.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::No => Duration::ZERO,
            Self::OpensAt(_) => COUNTING_PATIENCE,
            Self::NotBefore(time) | Self::Closed(time) => {
                time.saturating_duration_since(Instant::now())
            }
            Self::Open => Duration::MAX,
        }
    }
}

impl Counting {
    /// Serves on where the owner before us left off, if it can be.
    pub(crate) async fn take_over_counter(&mut self) {
        self.serving = Serving::No;
        self.aggregator.progress.serves(self.partition, false);
        for _ in 0..CATCH_UP_TRIES {
            match self.catch_up().await {
                Ok(caught_up) => {
                    self.backoff.reset();
                    if caught_up {
                        self.opened("admissions go on");
                    }
                    return;
                }
                Err(error) => self.backoff.pause("take over the counter", &error).await,
            }
        }
        tracing::warn!(partition = %self.partition, "the counter cannot be taken over");
    }

    /// Brings the counter from what it knows up to the cursor; `false`: it is not open, or too far
    /// behind.
    async fn catch_up(&mut self) -> Result<bool, Unavailable> {
        let counter = &self.aggregator.counter;
        let Some(start) = counter.take_over(self.partition).await? else { return Ok(false) };
        let range = OffsetRange { start, end: self.cursor.position };
        if range.count() > CATCH_UP_RECORDS_MAX {
            return Ok(false);
        }
        let settled = self.settled_in(range).await?;
        let users: BTreeSet<_> = settled.iter().map(|one| (one.user_id, one.period)).collect();
        let users: Vec<_> = users.into_iter().collect();
        let synced = Synced {
            partition: self.partition,
            cursor: range.end,
            watermark: self.cursor.log_time,
            totals: self.totals(&users).await?,
            settled,
        };
        self.aggregator.counter.sync(&synced).await
    }

    /// The entries of the counted and duplicate records of a range that the ledger has.
    async fn settled_in(&self, range: OffsetRange) -> Result<Vec<Settled>, Unavailable> {
        let mut settled = Vec::new();
        let mut rest = range;
        while rest.start < rest.end {
            let source = &self.aggregator.source;
            let records = source.read_again(self.partition, rest, CATCH_UP_RECORDS).await?;
            let Some(last) = records.last() else {
                return Err(Unavailable::new("event_log", format!("no record at {}", rest.start)));
            };
            rest.start = last.offset.plus(1);
            settled.extend(self.settled_of(&records).await?);
        }
        Ok(settled)
    }

    async fn settled_of(&self, records: &[LogRecord]) -> Result<Vec<Settled>, Unavailable> {
        let events: Vec<_> = records
            .iter()
            .filter_map(|record| match &record.payload {
                Payload::Event(admitted) if !is_void(admitted, record.log_time) => Some(admitted),
                Payload::Event(_) | Payload::Tick(_) | Payload::Undecodable { .. } => None,
            })
            .collect();
        let ids: Vec<_> = events.iter().map(|one| (one.event.user_id, one.id_digest)).collect();
        let known = self.aggregator.lookup.known(&ids).await?.found;
        let of = events.into_iter().zip(known).filter(|(admitted, known)| {
            // An id that was used again for something else was set aside; its entry stays.
            known.is_some_and(|known| known.content == admitted.content_digest)
        });
        Ok(of
            .map(|(admitted, _)| Settled {
                user_id: admitted.event.user_id,
                period: admitted.event.period(),
                id_digest: admitted.id_digest,
            })
            .collect())
    }

    /// Goes on towards open admissions as far as it can without waiting: counting goes on meanwhile.
    pub(crate) async fn go_on_opening(&mut self) {
        while let Some(next) = self.next_step().await {
            match next {
                Ok(Serving::Open) => {
                    self.opened("everything in the log is counted: admissions begin");
                }
                Ok(next) => self.serving = next,
                Err(error) => {
                    metrics::counter!("tokenmeter_store_errors_total", "store" => error.store)
                        .increment(1);
                    tracing::warn!(partition = %self.partition, %error, "admissions are not open yet");
                    self.serving = self.serving.after_failure(Instant::now() + RETRY_INTERVAL);
                    return;
                }
            }
        }
    }

    /// What the next step came to; `None` when it is not yet time for it, or none is left.
    async fn next_step(&self) -> Option<Result<Serving, Unavailable>> {
        match self.serving {
            Serving::Open => None,
            Serving::NotBefore(time) | Serving::Closed(time) if Instant::now() < time => None,
            Serving::No | Serving::NotBefore(_) => Some(self.close().await),
            Serving::Closed(_) => Some(self.end_of_log().await),
            Serving::OpensAt(end) if self.cursor.position < end => None,
            Serving::OpensAt(_) => Some(self.open().await),
        }
    }

    async fn close(&self) -> Result<Serving, Unavailable> {
        let wait = self.aggregator.counter.close(self.partition).await?;
        Ok(Serving::Closed(Instant::now() + wait))
    }

    async fn end_of_log(&self) -> Result<Serving, Unavailable> {
        Ok(Serving::OpensAt(self.aggregator.source.end(self.partition).await?))
    }

    async fn open(&self) -> Result<Serving, Unavailable> {
        let (cursor, watermark) = (self.cursor.position, self.watermark().await);
        let opened = self.aggregator.counter.open(self.partition, cursor, watermark).await?;
        Ok(if opened { Serving::Open } else { Serving::No })
    }

    fn opened(&mut self, what: &'static str) {
        self.serving = Serving::Open;
        self.aggregator.progress.serves(self.partition, true);
        tracing::info!(partition = %self.partition, cursor = %self.cursor.position, "{what}");
    }

    /// The counter was lost, or somebody else has closed it.
    pub(crate) fn stop_serving(&mut self) {
        tracing::warn!(partition = %self.partition, "the counter is opened anew");
        metrics::counter!("tokenmeter_counter_rebuilds_total").increment(1);
        self.serving = Serving::No;
        self.aggregator.progress.serves(self.partition, false);
    }
}
