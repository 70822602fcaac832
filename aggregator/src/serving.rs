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

/// A log or ledger that is just starting fails for some seconds; to open anew costs much longer. But it
/// is all that helps when what the counter lacks is not in the log any more.
const CATCH_UP_TRIES: u32 = 7;

/// Between two tries to bring up to date, close or open. Counting goes on meanwhile.
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
    /// It may be open, and does not know what was counted since: it is brought up to date, not before
    /// that time.
    Behind {
        /// Whether it served under us before.
        has_served: bool,
        /// How often the counter answered, and something else failed.
        tries: u32,
        not_before: Instant,
    },
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

    /// Whether everything must be counted before it can be open.
    pub(crate) fn waits_for_counting(&self) -> bool {
        matches!(self, Self::No | Self::NotBefore(_) | Self::Closed(_) | Self::OpensAt(_))
    }

    /// Whether it served under us, before it fell behind.
    fn has_served(&self) -> bool {
        matches!(self, Self::Behind { has_served: true, .. })
    }

    /// Where to begin again at `time` after a step that failed. What is closed stays so: to close it
    /// anew would cost the wait anew.
    fn after_failure(&self, time: Instant) -> Self {
        match self {
            Self::No | Self::NotBefore(_) => Self::NotBefore(time),
            Self::Behind { has_served, tries, .. } => {
                Self::Behind { has_served: *has_served, tries: *tries, not_before: time }
            }
            Self::Closed(_) | Self::OpensAt(_) | Self::Open => Self::Closed(time),
        }
    }

    /// How long there is nothing to do here.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::No => Duration::ZERO,
            Self::OpensAt(_) => COUNTING_PATIENCE,
            Self::NotBefore(time) | Self::Closed(time) | Self::Behind { not_before: time, .. } => {
                time.saturating_duration_since(Instant::now())
            }
            Self::Open => Duration::MAX,
        }
    }
}

impl Counting {
    /// Serves on where the owner before us left off, if it can be.
    pub(crate) async fn take_over_counter(&mut self) {
        self.falls_behind(false);
        self.go_on_opening().await;
    }

    /// The counter is not told any more what is counted, until it is brought up to date.
    pub(crate) fn falls_behind(&mut self, has_served: bool) {
        self.serving = Serving::Behind { has_served, tries: 0, not_before: Instant::now() };
        self.aggregator.progress.serves(self.partition, false);
    }

    /// Brings the counter from what it knows up to the cursor; `false`: it serves under another name
    /// by now, or is too far behind.
    async fn catch_up(&self, start: Offset) -> Result<bool, Unavailable> {
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
                Ok(Serving::Open) => self.opened(),
                Ok(Serving::No) if self.serving.has_served() => self.stop_serving(),
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
    async fn next_step(&mut self) -> Option<Result<Serving, Unavailable>> {
        match self.serving {
            Serving::Open => None,
            Serving::NotBefore(time)
            | Serving::Closed(time)
            | Serving::Behind { not_before: time, .. }
                if Instant::now() < time =>
            {
                None
            }
            Serving::Behind { tries, .. } => Some(self.bring_up_to_date(tries).await),
            Serving::No | Serving::NotBefore(_) => Some(self.close().await),
            Serving::Closed(_) => Some(self.end_of_log().await),
            Serving::OpensAt(end) if self.cursor.position < end => None,
            Serving::OpensAt(_) => Some(self.open().await),
        }
    }

    async fn bring_up_to_date(&mut self, tries: u32) -> Result<Serving, Unavailable> {
        let known = self.aggregator.counter.take_over(self.partition).await?;
        let Some(known) = known else { return Ok(Serving::No) };
        match self.catch_up(known).await {
            Ok(true) => Ok(Serving::Open),
            Ok(false) => Ok(Serving::No),
            Err(error) if tries + 1 >= CATCH_UP_TRIES => {
                tracing::warn!(partition = %self.partition, %error,
                    "the counter cannot be brought up to date");
                Ok(Serving::No)
            }
            Err(error) => {
                if let Serving::Behind { tries, .. } = &mut self.serving {
                    *tries += 1;
                }
                Err(error)
            }
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

    fn opened(&mut self) {
        let what = match self.serving {
            Serving::Behind { .. } => "the counter knows what is counted: admissions go on",
            _ => "everything in the log is counted: admissions begin",
        };
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
