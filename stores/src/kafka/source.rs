//! Reading: a member of the consumer group, and a reader for each partition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use super::client;
use super::ends::Ends;
use super::event_log::KafkaEventLog;
use super::membership::{Membership, Seat};
use super::reader::{Consumer, Reader, Topic, not_ours};
use super::rereader::Rereader;
use super::settings::{KafkaSettings, SettingError};
use super::topic::TopicId;
use super::unavailable;

/// How long the member listens to the group before it looks whether it is to stop.
const LISTEN: Duration = Duration::from_millis(100);

/// The event log as the aggregator reads it: a member of the consumer group.
///
/// The group only says who reads which partition. Positions come from the caller; what the group
/// has noted is for tools that show the lag. Records wait in one queue for each partition: when a
/// partition's queue is full, its fetch waits, and no other's. Dropping the source leaves the
/// group, so that others take over at once; that takes a moment, and blocks.
pub struct KafkaEventSource {
    topic: Topic,
    log: Arc<KafkaEventLog>,
    consumer: Arc<Consumer>,
    readers: Vec<Arc<Mutex<Reader>>>,
    rereader: Arc<Mutex<Rereader>>,
    ends: Ends,
    identity: Identity,
    stopped: Arc<AtomicBool>,
    member: Option<JoinHandle<()>>,
}

/// Which topic this is: one of the same name may have taken its place.
struct Identity {
    settings: KafkaSettings,
    admin: OnceCell<KafkaAdmin>,
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
        let source = Self::observe(settings, log, expected)?;
        source.consumer.subscribe(&[&settings.topic])?;
        Ok(source)
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
        let refused = |error: Unavailable| SettingError::Refused(error.reason);
        let config = settings.consumer()?;
        let membership = Membership::of(settings.partitions.get());
        let consumer: Arc<Consumer> = Arc::new(config.create_with_context(membership)?);
        let topic =
            Topic { name: settings.topic.as_str().into(), generation: settings.generation() };
        let readers = (0..settings.partitions.get())
            .map(|number| Reader::new(&consumer, topic.clone(), Partition::new(number)))
            .map(|reader| reader.map(|reader| Arc::new(Mutex::new(reader))))
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let member = listen(consumer.clone(), stopped.clone())?;
        Ok(Self {
            ends: Ends::new(topic.name.clone(), consumer.clone()),
            rereader: Arc::new(Mutex::new(Rereader::new(config, topic.clone()))),
            identity: Identity {
                settings: settings.clone(),
                admin: OnceCell::new(),
                expected: OnceCell::new_with(expected),
            },
            topic,
            log,
            consumer,
            readers,
            stopped,
            member: Some(member),
        })
    }

    fn membership(&self) -> &Membership {
        self.consumer.context()
    }

    /// The reader and the seat of a partition that is ours.
    fn ours(&self, partition: Partition) -> Result<(Arc<Mutex<Reader>>, &Seat), Unavailable> {
        let reader = usize::try_from(partition.number())
            .ok()
            .and_then(|number| self.readers.get(number))
            .filter(|_| self.membership().is_assigned(partition));
        match (reader, self.membership().seat(partition)) {
            (Some(reader), Some(seat)) => Ok((reader.clone(), seat)),
            _ => Err(not_ours(partition)),
        }
    }

    /// Nothing came: because there is nothing, or because no broker is there?
    async fn not_away(&self, partition: Partition) -> Result<(), Unavailable> {
        if self.membership().is_away() {
            self.ends.of(partition).await?;
            self.membership().is_back();
        }
        Ok(())
    }

    fn exists(&self, partition: Partition) -> Result<(), Unavailable> {
        self.membership().seat(partition).map(|_| ()).ok_or_else(|| {
            unavailable(format!("it has {} partitions, not {partition}", self.readers.len()))
        })
    }
}

/// Serves what the group says until the source is dropped.
fn listen(
    consumer: Arc<Consumer>,
    stopped: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, SettingError> {
    let listening = move || {
        while !stopped.load(Ordering::Relaxed) {
            match consumer.poll(LISTEN) {
                None => {}
                Some(Err(error)) => client::group_error(&error),
                // Each partition has a queue of its own since before it was assigned.
                Some(Ok(_)) => tracing::error!("a record came outside of its partition's queue"),
            }
        }
    };
    std::thread::Builder::new()
        .name("kafka-group".to_owned())
        .spawn(listening)
        .map_err(|error| SettingError::NoThread(error.to_string()))
}

impl Drop for KafkaEventSource {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(member) = self.member.take()
            && member.join().is_err()
        {
            tracing::error!("the event log's group member panicked");
        }
        // The consumer leaves the group when its last user is gone.
    }
}

impl Identity {
    /// Refuses a topic that has taken the place of the one that was read before.
    async fn check(&self) -> Result<(), Unavailable> {
        let admin = self
            .admin
            .get_or_try_init(async || KafkaAdmin::new(&self.settings).map_err(unavailable))
            .await?;
        let found = admin.topic_id().await.map_err(unavailable)?;
        let expected = self.expected.get_or_init(async || found.clone()).await;
        if *expected == found {
            return Ok(());
        }
        Err(unavailable(format!(
            "the topic is {found}, not {expected}: another log has taken its place; \
             `tokenmeter migrate --new-log` starts a generation"
        )))
    }
}

#[async_trait]
impl EventSource for KafkaEventSource {
    async fn assigned(&self, unlike: &BTreeSet<Partition>) -> BTreeSet<Partition> {
        let mut assigned = self.membership().assigned();
        let other = assigned.wait_for(|assigned| assigned != unlike).await.map(|set| set.clone());
        match other {
            Ok(assigned) => assigned,
            // The sender lives as long as the source.
            Err(_) => std::future::pending().await,
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
        let (reader, seat) = self.ours(partition)?;
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
                self.not_away(partition).await?;
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
        let end = self.ends.of(partition).await?;
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
        if !self.membership().is_assigned(partition) {
            return Ok(0);
        }
        let below = KafkaOffset::Offset(self.topic.generation.kafka(below)?);
        let number = i32::try_from(partition.number()).map_err(unavailable)?;
        let mut noted = TopicPartitionList::new();
        noted.add_partition_offset(&self.topic.name, number, below).map_err(unavailable)?;
        self.consumer.commit(&noted, CommitMode::Async).map_err(unavailable)?;
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
