//! Telling the quota counter what is counted.

use std::time::Duration;

use metering::quota::{Synced, UserTotals};
use metering::time::Timestamp;
use metering::usage::Settled;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::counting::Counting;

/// What the counter does not know yet of what lies below the cursor.
#[derive(Default)]
pub(crate) struct Untold {
    pub(crate) totals: Vec<UserTotals>,
    pub(crate) settled: Vec<Settled>,
}

/// How long the counter is told the same again. A server that restarts is back by then; beyond it
/// counting goes on, and what was not told is read from the log again once the server is back.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It knows, or it need not: before it serves, or as the process ends.
    Well,
    /// It serves under another name: it must be opened anew.
    Stranger,
    /// It failed for longer than [`PATIENCE`].
    Away,
}

impl Counting {
    /// Tells what is untold, and the watermark, while nothing is counted.
    pub(crate) async fn tell_now(&mut self) {
        let untold = self.untold.take().unwrap_or_default();
        let told = self.tell(Some(untold)).await;
        self.after_telling(told);
    }

    /// Draws the conclusions.
    pub(crate) fn after_telling(&mut self, told: Told) {
        match told {
            Told::Well => {}
            Told::Stranger => self.stop_serving(),
            Told::Away => {
                tracing::warn!(partition = %self.partition, "the counter is away: counting goes on");
                self.falls_behind(true);
            }
        }
    }

    /// Tells the counter what is counted, again while it fails. What it does not hear here it learns
    /// from the log.
    pub(crate) async fn tell(&self, untold: Option<Untold>) -> Told {
        let Some(Untold { totals, settled }) = untold.filter(|_| self.serving.is_open()) else {
            return Told::Well;
        };
        let watermark = self.watermark().await;
        let (partition, cursor) = (self.partition, self.cursor.position);
        let synced = Synced { partition, cursor, watermark, totals, settled };
        let mut backoff = Backoff::new(self.stopping.clone());
        let began = Instant::now();
        loop {
            match self.aggregator.counter.sync(&synced).await {
                Ok(true) => return Told::Well,
                Ok(false) => return Told::Stranger,
                Err(error) if self.is_stopping() => {
                    tracing::warn!(%error, "stopped before the counter was told what was counted");
                    return Told::Well;
                }
                Err(error) if began.elapsed() >= PATIENCE => {
                    metrics::counter!("tokenmeter_store_errors_total", "store" => error.store)
                        .increment(1);
                    return Told::Away;
                }
                Err(error) => backoff.pause("sync", &error).await,
            }
        }
    }

    /// The source's watermark, when everything up to the log's end is counted; else what the cursor
    /// tells: records to come have at least its log time.
    pub(crate) async fn watermark(&self) -> Timestamp {
        let source = &self.aggregator.source;
        // In this order: what comes after this end was not yet there when the watermark was taken.
        let watermark = source.watermark(self.partition).await;
        let end = source.end(self.partition).await;
        match (watermark, end) {
            (Ok(Some(watermark)), Ok(end)) if end <= self.cursor.position => watermark,
            _ => self.cursor.log_time,
        }
    }
}
