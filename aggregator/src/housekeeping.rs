//! Beside the counting: how far behind it is, and what the log may let go of.

use std::convert::Infallible;
use std::time::Duration;

use metering::Unavailable;
use metering::time::Timestamp;
use metering::usage::{Offset, OffsetRange, Partition};
use tokio::time::{Instant, MissedTickBehavior};

use crate::run::Aggregator;

/// How often the log's end is looked at: the age of lag metrics and of readiness.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the log is trimmed.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

impl Aggregator {
    /// Works until it is dropped.
    pub(crate) async fn keep_house(&self) -> Infallible {
        let mut interval = tokio::time::interval(OBSERVE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trimmed_at = Instant::now();
        loop {
            interval.tick().await;
            self.observe().await;
            if trimmed_at.elapsed() >= TRIM_INTERVAL {
                trimmed_at = Instant::now();
                self.trim().await;
            }
        }
    }

    /// Looks how much waits. A log that does not answer leaves the figures as they were.
    async fn observe(&self) {
        let (mut waiting, mut oldest) = (0, None);
        for (partition, progress) in self.progress.partitions() {
            if let Some(cursor) = progress.cursor
                && let Ok((end, first)) = self.look(partition, cursor).await
            {
                self.progress.seen(partition, cursor, end, first);
                waiting += end.number().saturating_sub(cursor.number());
                oldest = oldest.into_iter().chain(first).min();
            }
        }
        let waiting = u32::try_from(waiting).map_or(f64::MAX, f64::from);
        let age = oldest.map_or(Duration::ZERO, |oldest: Timestamp| self.clock.now().since(oldest));
        metrics::gauge!("tokenmeter_records_waiting").set(waiting);
        metrics::gauge!("tokenmeter_oldest_waiting_seconds").set(age.as_secs_f64());
    }

    /// Where the log ends, and the log time of the first record that is not counted.
    async fn look(
        &self,
        partition: Partition,
        cursor: Offset,
    ) -> Result<(Offset, Option<Timestamp>), Unavailable> {
        let end = self.source.end(partition).await?;
        if end <= cursor {
            return Ok((end, None));
        }
        let waiting = OffsetRange { start: cursor, end };
        let first = self.source.read_again(partition, waiting, 1).await?;
        Ok((end, first.first().map(|record| record.log_time)))
    }

    /// Lets the log go of records that are counted and older than the retention. Done once a minute
    /// while it runs.
    pub async fn trim(&self) {
        let before = self.clock.now().minus(self.log_retention);
        for (partition, progress) in self.progress.partitions() {
            let Some(cursor) = progress.cursor else { continue };
            match self.source.trim(partition, cursor, before).await {
                Ok(0) => {}
                Ok(records) => tracing::info!(%partition, records, "old records left the log"),
                Err(error) => tracing::warn!(%partition, %error, "the log was not trimmed"),
            }
        }
    }
}
