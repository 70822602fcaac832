//! What one partition counts next, and how long it waits for more of it.

use std::time::Duration;

use metering::Unavailable;
use metering::usage::{LogRecord, Offset};
use tokio::time::Instant;

use crate::counting::Counting;

/// Records of one flush. Larger ones take memory (some 20 MiB) and make what was just tracked visible
/// later; smaller ones pay more often for a commit, and for the summaries of the same users.
pub(crate) const FLUSH_RECORDS_MAX: usize = 30_000;

/// After which it is first looked whether more records have come; then after twice that, and so on.
const FIRST_PORTION: Duration = Duration::from_millis(10);

/// How often an idle counter hears of a new watermark, by which it forgets what never arrived.
const IDLE_SYNC: Duration = Duration::from_secs(1);

impl Counting {
    /// The next records to count; none after a moment without any, or when told to stop.
    pub(crate) async fn next_records(&mut self) -> Result<Vec<LogRecord>, Unavailable> {
        let ahead = std::mem::take(&mut self.ahead);
        if !ahead.is_empty() {
            return Ok(ahead);
        }
        let patience = self.serving.patience().min(IDLE_SYNC);
        let is_stopping = self.is_stopping();
        let patience = if is_stopping { Duration::ZERO } else { patience };
        // Nobody waits for what is visible until admissions are open.
        let at_once = is_stopping || !self.serving.is_open();
        let mut stopping = self.stopping.clone();
        let mut records = tokio::select! {
            records = self.read(self.cursor.position, FLUSH_RECORDS_MAX, patience) => records?,
            _ = stopping.wait_for(|stopping| *stopping), if !is_stopping => return Ok(Vec::new()),
        };
        if let Some(next_flush) = self.next_flush.filter(|_| !records.is_empty() && !at_once) {
            self.gather(&mut records, next_flush).await;
        }
        Ok(records)
    }

    /// Adds what comes until the next flush is due. A whole flush is due at once: a backlog comes in
    /// portions, each a moment after the one before.
    async fn gather(&self, records: &mut Vec<LogRecord>, next_flush: Instant) {
        let mut stopping = self.stopping.clone();
        let mut pause = FIRST_PORTION;
        while records.len() < FLUSH_RECORDS_MAX {
            let stop = stopping.wait_for(|stopping| *stopping);
            let wake = next_flush.min(Instant::now() + pause);
            // Whichever comes first.
            let stopped = tokio::time::timeout_at(wake, stop).await.is_ok();
            let more = FLUSH_RECORDS_MAX - records.len();
            let next = records.last().map_or(self.cursor.position, |last| last.offset.plus(1));
            // What is there can be counted, whatever became of the rest.
            let Ok(portion) = self.read(next, more, Duration::ZERO).await else { return };
            records.extend(portion);
            if stopped || Instant::now() >= next_flush {
                return;
            }
            pause *= 2;
        }
    }

    pub(crate) async fn read(
        &self,
        from: Offset,
        records_max: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        self.aggregator.source.read(self.partition, from, records_max, patience).await
    }
}
