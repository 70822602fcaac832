//! Both ends of the log, as one process may have them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::time::Timestamp;
use metering::trace::TraceParent;
use metering::usage::{
    AdmittedEvent, AppendError, Appended, EventLog, EventSource, LogRecord, Offset, OffsetRange,
    Partition, Tick,
};
use stores::kafka::{KafkaEventLog, KafkaEventSource, KafkaSettings};

use crate::contract::event_log::{PATIENCE, Subject};
use crate::servers::kafka::{FreshTopic, made};

/// A producer, and a source that owns its partitions.
pub(crate) struct Both {
    pub(crate) log: Arc<KafkaEventLog>,
    pub(crate) source: KafkaEventSource,
}

impl Both {
    pub(crate) fn open(settings: &KafkaSettings) -> Self {
        let log = Arc::new(KafkaEventLog::open(settings).unwrap());
        let source = KafkaEventSource::open(settings, log.clone(), None).unwrap();
        Self { log, source }
    }

    /// Once the group has given it a partition.
    pub(crate) async fn joined(settings: &KafkaSettings) -> Self {
        let (both, nothing) = (Self::open(settings), BTreeSet::new());
        // Of a member that loses its brokers meanwhile there may be a second one.
        tokio::time::timeout(3 * PATIENCE, both.assigned(&nothing)).await.unwrap();
        both
    }
}

/// A topic with both ends, all gone when dropped: the ends first, as fields are dropped in order.
pub(crate) struct Fresh {
    pub(crate) store: Store,
}

pub(crate) struct Store {
    both: Mutex<Option<Arc<Both>>>,
    topic: FreshTopic,
}

/// One partition, so that every user's events are in it.
pub(crate) async fn fresh() -> Fresh {
    let topic = made(1).await;
    let both = Mutex::new(Some(Arc::new(Both::open(&topic.settings))));
    Fresh { store: Store { both, topic } }
}

#[allow(clippy::disallowed_methods, reason = "the broker's clock is the machine's")]
pub(crate) fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since_epoch.as_millis().try_into().unwrap())
}

impl Subject for Store {
    type Log = Both;

    fn log(&self) -> Arc<Both> {
        self.both.lock().unwrap().clone().unwrap()
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn reopen(&self) {
        let mut both = self.both.lock().unwrap();
        drop(both.take());
        *both = Some(Arc::new(Both::open(&self.topic.settings)));
    }

    async fn second(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[async_trait]
impl EventLog for Both {
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        trace: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError> {
        self.log.append(events, trace).await
    }
}

#[async_trait]
impl EventSource for Both {
    async fn assigned(&self, unlike: &BTreeSet<Partition>) -> BTreeSet<Partition> {
        self.source.assigned(unlike).await
    }

    /// A member of a group owns nothing yet when it has just been opened.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        self.source.assigned(&BTreeSet::new()).await;
        self.source.read(partition, from, records_max, patience).await
    }

    async fn read_again(
        &self,
        partition: Partition,
        range: OffsetRange,
        records_max: usize,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        self.source.read_again(partition, range, records_max).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, Unavailable> {
        self.source.end(partition).await
    }

    async fn watermark(&self, partition: Partition) -> Result<Option<Timestamp>, Unavailable> {
        self.source.watermark(partition).await
    }

    async fn tick(&self, partition: Partition, tick: Tick) -> Result<(), Unavailable> {
        self.source.tick(partition, tick).await
    }

    async fn trim(
        &self,
        partition: Partition,
        below: Offset,
        before: Timestamp,
    ) -> Result<u64, Unavailable> {
        self.source.trim(partition, below, before).await
    }
}
