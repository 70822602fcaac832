//! A log that gives few records at a time, as one that prefetches them does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::time::Timestamp;
use metering::usage::{EventSource, LogRecord, Offset, OffsetRange, Partition, Tick};
use stores::sqlite::SqliteEventLog;

pub(crate) struct Portions {
    pub(crate) log: Arc<SqliteEventLog>,
    /// Records of one read at most.
    pub(crate) records_max: usize,
}

#[async_trait]
impl EventSource for Portions {
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        self.log.read(partition, from, records_max.min(self.records_max), patience).await
    }

    async fn assigned(&self, unlike: &BTreeSet<Partition>) -> BTreeSet<Partition> {
        self.log.assigned(unlike).await
    }

    async fn read_again(
        &self,
        partition: Partition,
        range: OffsetRange,
        records_max: usize,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        self.log.read_again(partition, range, records_max).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, Unavailable> {
        self.log.end(partition).await
    }

    async fn watermark(&self, partition: Partition) -> Result<Option<Timestamp>, Unavailable> {
        self.log.watermark(partition).await
    }

    async fn tick(&self, partition: Partition, tick: Tick) -> Result<(), Unavailable> {
        self.log.tick(partition, tick).await
    }

    async fn trim(
        &self,
        partition: Partition,
        below: Offset,
        before: Timestamp,
    ) -> Result<u64, Unavailable> {
        self.log.trim(partition, below, before).await
    }
}
