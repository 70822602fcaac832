//! Telling the quota counter what is counted.

use metering::quota::{Synced, UserTotals};
use metering::time::Timestamp;
use metering::usage::Settled;

use crate::backoff::Backoff;
use crate::counting::Counting;

/// What the counter does not know yet of what lies below the cursor.
#[derive(Default)]
pub(crate) struct Untold {
    pub(crate) totals: Vec<UserTotals>,
    pub(crate) settled: Vec<Settled>,
}

impl Counting {
    /// Tells what is untold, and the watermark, while nothing is counted.
    pub(crate) async fn tell_now(&mut self) {
        let untold = self.untold.take().unwrap_or_default();
        if !self.tell(Some(untold)).await {
            self.stop_serving();
        }
    }

    /// Tells the counter what is counted. Not lost when the counter fails: tried until it works. In
    /// vain only when the process ends, or when the counter serves under another name: `false`, and
    /// it must be opened anew.
    pub(crate) async fn tell(&self, untold: Option<Untold>) -> bool {
        let Some(Untold { totals, settled }) = untold.filter(|_| self.serving.is_open()) else {
            return true;
        };
        let watermark = self.watermark().await;
        let (partition, cursor) = (self.partition, self.cursor.position);
        let synced = Synced { partition, cursor, watermark, totals, settled };
        let mut backoff = Backoff::new(self.stopping.clone());
        loop {
            match self.aggregator.counter.sync(&synced).await {
                Ok(serves) => return serves,
                Err(error) if self.is_stopping() => {
                    tracing::warn!(%error, "stopped before the counter was told what was counted");
                    return true;
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
