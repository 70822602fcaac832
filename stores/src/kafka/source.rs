//! Reading: a member of the consumer group, and a reader for each partition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::time::Timestamp;
use metering::usage::{EventSource, LogRecord, Offset, OffsetRange, Partition, Tick};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::admin::KafkaAdmin;
use super::event_log::KafkaEventLog;
use super::member::Members;
use super::reader::{Topic, not_ours};
use super::rereader::Rereader;
use super::settings::{KafkaSettings, SettingError};
use super::topic::{TopicError, TopicId};
use super::unavailable;

/// The event log as the aggregator reads it: a member of the consumer group.
///
/// The group only says who reads which partition. Positions come from the caller; what the group
/// has noted is for tools that show the lag. Records wait in one queue for each partition: when a
/// partition's queue is full, its fetch waits, and no other's. Dropping the source leaves the
/// group, so that others take over at once; that takes a moment, and blocks.
pub struct KafkaEventSource {
    topic: Topic,
    log: Arc<KafkaEventLog>,
    members: Arc<Members>,
    rereader: Arc<Mutex<Rereader>>,
    identity: Identity,
    thread: Option<JoinHandle<()>>,
}

/// Which topic this is: one of the same name may have taken its place.
struct Identity {
    settings: KafkaSettings,
    /// Made when first needed, and anew after it has failed.
    admin: Mutex<Option<Arc<KafkaAdmin>>>,
    expected: OnceCell<TopicId>,
}

impl KafkaEventSource {
    /// Joins the consumer group; `log` is where ticks are appended. The topic must be `expected`,
    /// which the ledger keeps beside its cursors; without it, the same as at the first read.
    ///
    /// # Errors
    /// [`SettingError`]: an option is not the caller's, or the library refuses one.
    pub fn open(
        settings: &KafkaSettings,
        log: Arc<KafkaEventLog>,
        expected: Option<TopicId>,
    ) -> Result<Self, SettingError> {
        Self::start(settings, log, expected, true)
    }

    /// The same without joining the group: no partition is ever its own, so it tells ends and reads
    /// again, for whoever compares the books.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn observe(
        settings: &KafkaSettings,
        log: Arc<KafkaEventLog>,
        expected: Option<TopicId>,
    ) -> Result<Self, SettingError> {
        Self::start(settings, log, expected, false)
    }

    fn start(
        settings: &KafkaSettings,
        log: Arc<KafkaEventLog>,
        expected: Option<TopicId>,
        join: bool,
    ) -> Result<Self, SettingError> {
        let topic = Topic::of(settings);
        let members = Members::start(settings, join)?;
        let thread = Some(members.clone().serve()?);
        let rereader = Rereader::new(settings.consumer()?, topic.clone());
        Ok(Self {
            rereader: Arc::new(Mutex::new(rereader)),
            identity: Identity {
                settings: settings.clone(),
                admin: Mutex::default(),
                expected: OnceCell::new_with(expected),
            },
            topic,
            log,
            members,
            thread,
        })
    }

    fn exists(&self, partition: Partition) -> Result<(), Unavailable> {
        let partitions = self.identity.settings.partitions.get();
        if partition.number() < partitions {
            return Ok(());
        }
        Err(unavailable(format!("it has {partitions} partitions, not {partition}")))
    }
}

impl Drop for KafkaEventSource {
    fn drop(&mut self) {
        self.members.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the event log's group member panicked");
        }
        // The consumer leaves the group when its last user is gone.
    }
}

impl Identity {
    /// Refuses a topic that has taken the place of the one that was read before.
    async fn check(&self) -> Result<(), Unavailable> {
        let found = self.topic_id().await.map_err(unavailable)?;
        let expected = self.expected.get_or_init(async || found.clone()).await;
        if *expected == found {
            return Ok(());
        }
        Err(unavailable(format!(
            "the topic is {found}, not {expected}: another log has taken its place; \
             `tokenmeter migrate --new-log` starts a generation"
        )))
    }

    async fn topic_id(&self) -> Result<TopicId, TopicError> {
        let admin = match &mut *self.admin.lock().await {
            Some(admin) => admin.clone(),
            none => {
                none.insert(Arc::new(KafkaAdmin::new(&self.settings).map_err(unavailable)?)).clone()
            }
        };
        let found = admin.topic_id().await;
        if found.is_err() {
            *self.admin.lock().await = None;
        }
        found
    }
}

#[async_trait]
impl EventSource for KafkaEventSource {
    async fn assigned(&self, unlike: &BTreeSet<Partition>) -> BTreeSet<Partition> {
        let mut members = self.members.subscribe();
        loop {
            let mut assigned = members.borrow_and_update().membership().assigned();
            let other = async {
                assigned.wait_for(|assigned| assigned != unlike).await.map(|set| set.clone())
            };
            tokio::select! {
                Ok(assigned) = other => return assigned,
                // Another member takes its place.
                Ok(()) = members.changed() => {}
                // Both senders live as long as the source.
                else => std::future::pending().await,
            }
        }
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        let from = self.topic.generation.kafka(from)?;
        let member = self.members.now();
        let (reader, seat) = member.ours(partition).ok_or_else(|| not_ours(partition))?;
        let mut reader = reader.lock_owned().await;
        if !reader.stands_at(from) {
            self.identity.check().await?;
            reader = blocking(move || reader.seek(from).map(|()| reader)).await?;
        }
        let deadline = Instant::now() + patience;
        loop {
            let records;
            (reader, records) =
                blocking(move || reader.take(records_max).map(|records| (reader, records))).await?;
            if !records.is_empty() || records_max == 0 {
                return Ok(records);
            }
            if tokio::time::timeout_at(deadline, seat.news.notified()).await.is_err() {
                member.not_away(partition).await?;
                return Ok(Vec::new());
            }
        }
    }

    async fn read_again(
        &self,
        partition: Partition,
        range: OffsetRange,
        records_max: usize,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        self.exists(partition)?;
        let start = self.topic.generation.kafka(range.start)?;
        let end = self.topic.generation.kafka(range.end)?;
        let mut rereader = self.rereader.clone().lock_owned().await;
        blocking(move || rereader.read(partition, (start, end), records_max)).await
    }

    async fn end(&self, partition: Partition) -> Result<Offset, Unavailable> {
        self.exists(partition)?;
        let end = self.members.now().ends.of(partition).await?;
        self.topic.generation.offset(end)
    }

    async fn watermark(&self, partition: Partition) -> Result<Option<Timestamp>, Unavailable> {
        self.exists(partition).map(|()| None)
    }

    async fn tick(&self, partition: Partition, tick: Tick) -> Result<(), Unavailable> {
        self.exists(partition)?;
        self.log.append_tick(partition, tick).await
    }

    async fn trim(
        &self,
        partition: Partition,
        below: Offset,
        _: Timestamp,
    ) -> Result<u64, Unavailable> {
        let member = self.members.now();
        if !member.membership().is_assigned(partition) {
            return Ok(0);
        }
        let below = KafkaOffset::Offset(self.topic.generation.kafka(below)?);
        let number = i32::try_from(partition.number()).map_err(unavailable)?;
        let mut noted = TopicPartitionList::new();
        noted.add_partition_offset(&self.topic.name, number, below).map_err(unavailable)?;
        member.consumer.commit(&noted, CommitMode::Async).map_err(unavailable)?;
        Ok(0)
    }
}

/// Runs what waits for the brokers, or decodes many records, beside the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unavailable> + Send + 'static,
) -> Result<T, Unavailable> {
    tokio::task::spawn_blocking(work).await.map_err(unavailable)?
}

impl std::fmt::Debug for KafkaEventSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaEventSource").field("topic", &self.topic).finish_non_exhaustive()
    }
}
