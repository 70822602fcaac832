//! Appending: one producer for all requests, and a thread that hears its delivery reports.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::trace::TraceParent;
use metering::usage::{AdmittedEvent, AppendError, Appended, EventLog, Partition, Tick, is_void};
use rdkafka::ClientConfig;
use rdkafka::producer::Producer as _;

use super::accounting::{Record, Request};
use super::condition::Condition;
use super::deliveries::{Letter, Outgoing, Producer, start};
use super::settings::{KafkaSettings, LOOK_AGAIN, LOOK_EVERY, MESSAGE_TIMEOUT, SettingError};
use super::unavailable;
use crate::failpoints::reached;
use crate::record;

/// How long the thread listens before it looks whether it is to stop.
const LISTEN: Duration = Duration::from_millis(100);

/// Reports come within twice `MESSAGE_TIMEOUT`, of the batch before and of its own, the library's
/// second of grace, and that of a look. This only ends the wait for one that never comes.
const REPORT_TIMEOUT: Duration = Duration::from_secs(12);

/// The cluster's event log in one Kafka topic.
///
/// An append is confirmed when all replicas in sync have each of its records and the broker has
/// told at what time. A trace stands in each record's header `traceparent`. A producer that cannot
/// go on (the cluster has forgotten or fenced it, or none of its records has come through for 10 s) is
/// replaced; what was on its way is unavailable.
/// A record larger than the topic takes is unavailable too, but no event is that large. Dropping
/// the log finishes what is on its way, for at most 4 s.
pub struct KafkaEventLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    topic: String,
    settings: KafkaSettings,
    config: ClientConfig,
    producer: RwLock<Arc<Producer>>,
    condition: Arc<Condition>,
    stopped: AtomicBool,
}

/// The records of one request as they are put together.
struct Draft {
    records: Vec<(Partition, Range<usize>)>,
    outgoing: Outgoing,
}

impl KafkaEventLog {
    /// Starts a producer; connects by itself, and again whenever a connection is lost.
    ///
    /// # Errors
    /// [`SettingError`]: an option is not the caller's, or the library refuses one.
    pub fn open(settings: &KafkaSettings) -> Result<Self, SettingError> {
        let config = settings.producer()?;
        let condition = Arc::new(Condition::default());
        let producer = RwLock::new(start(settings, &config, &condition)?);
        let shared = Arc::new(Shared {
            topic: settings.topic.clone(),
            settings: settings.clone(),
            config,
            producer,
            condition,
            stopped: AtomicBool::new(false),
        });
        let listening = shared.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-producer".to_owned())
            .spawn(move || listening.listen())
            .map_err(|error| SettingError::NoThread(error.to_string()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Whether the last record that came to an end failed, so that the next probably does too. While
    /// there are none, whether the brokers are away, or a partition has no leader.
    pub fn is_failing(&self) -> bool {
        self.shared.condition.is_failing()
    }

    /// Describes this log's metrics, and those of its source.
    pub fn describe() {
        metrics::describe_histogram!(
            "tokenmeter_log_commit_records",
            "Records that one append made durable in the event log"
        );
        metrics::describe_histogram!(
            "tokenmeter_log_commit_seconds",
            metrics::Unit::Seconds,
            "Time until all replicas in sync had the records of one append"
        );
        metrics::describe_gauge!(
            "tokenmeter_log_queue_records",
            "Records on their way to the event log"
        );
        metrics::describe_counter!(
            "tokenmeter_log_produce_errors_total",
            "Records that the event log did not confirm"
        );
        metrics::describe_counter!(
            "tokenmeter_log_producers_replaced_total",
            "Producers that could not go on and were replaced"
        );
        metrics::describe_counter!(
            "tokenmeter_log_consumers_replaced_total",
            "Consumers that reached no broker any more and were replaced"
        );
        metrics::describe_counter!(
            "tokenmeter_log_rebalances_total",
            "Changes of the partitions that this process reads"
        );
        metrics::describe_gauge!(
            "tokenmeter_log_partitions",
            "Partitions of the event log that this process reads"
        );
    }

    /// Appends a record that holds no event.
    pub(super) async fn append_tick(
        &self,
        partition: Partition,
        tick: Tick,
    ) -> Result<(), Unavailable> {
        let mut draft = Draft::with_capacity(1, 16);
        draft.push(partition, |body| record::encode_tick(tick, body));
        self.produce(draft).await.map(|_| ())
    }

    /// The log times of the records, once all are confirmed.
    async fn produce(&self, draft: Draft) -> Result<Vec<Timestamp>, Unavailable> {
        let answered = {
            // Held while the records are handed over, so that the thread never drops a producer
            // within a request.
            let producer = self.shared.producer.read().unwrap_or_else(PoisonError::into_inner);
            let deliveries = producer.context();
            let (request, answered) =
                Request::start(&deliveries.room, draft.records.len(), draft.bytes())?;
            for (partition, letters) in draft.letters(&request) {
                deliveries.post(partition, letters);
            }
            answered
        };
        reached("log::handed_over").await;
        match tokio::time::timeout(REPORT_TIMEOUT, answered).await {
            Ok(Ok(confirmed)) => confirmed,
            Ok(Err(_)) => Err(unavailable("its producer has stopped")),
            Err(_) => Err(unavailable("no delivery report came")),
        }
    }
}

impl Draft {
    fn with_capacity(records: usize, bytes: usize) -> Self {
        let outgoing = Outgoing { body: Vec::with_capacity(bytes), trace: None };
        Self { records: Vec::with_capacity(records), outgoing }
    }

    fn push(&mut self, partition: Partition, encode: impl FnOnce(&mut Vec<u8>)) {
        let body = &mut self.outgoing.body;
        let start = body.len();
        encode(body);
        self.records.push((partition, start..body.len()));
    }

    fn bytes(&self) -> usize {
        let header = |trace: &String| TraceParent::HEADER.len() + trace.len();
        let Outgoing { body, trace } = &self.outgoing;
        body.len() + self.records.len() * trace.as_ref().map_or(0, header)
    }

    /// By partition, each in the order of the request.
    fn letters(self, request: &Arc<Request>) -> impl Iterator<Item = (Partition, Vec<Letter>)> {
        let outgoing = Arc::new(self.outgoing);
        let letter = |(place, (partition, value))| {
            let record = Record { request: request.clone(), place, partition };
            Letter { outgoing: outgoing.clone(), value, record }
        };
        let mut letters: Vec<_> = self.records.into_iter().enumerate().map(letter).collect();
        letters.sort_by_key(|letter| letter.record.partition);
        std::iter::from_fn(move || {
            let partition = letters.first()?.record.partition;
            let end = letters.partition_point(|letter| letter.record.partition == partition);
            let others = letters.split_off(end);
            Some((partition, std::mem::replace(&mut letters, others)))
        })
    }
}

impl Shared {
    /// Hears delivery reports until the log is dropped. Without any it looks now and then whether the
    /// brokers are there.
    fn listen(&self) {
        let mut looked = Instant::now();
        while !self.stopped.load(Ordering::Relaxed) {
            let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
            producer.poll(LISTEN);
            let pause = if self.condition.is_failing() { LOOK_AGAIN } else { LOOK_EVERY };
            if looked.elapsed() > pause {
                producer.context().look_when_idle(&producer);
                looked = Instant::now();
            }
            if producer.context().fatal.load(Ordering::Relaxed) {
                self.replace(producer);
            }
        }
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Err(error) = producer.flush(MESSAGE_TIMEOUT) {
            tracing::warn!(%error, "the event log was closed before Kafka had everything");
        }
    }

    /// Puts a new producer in the place of one that cannot go on. All that is on its way through the
    /// old one fails when it is dropped: here, in the thread, because that takes a moment.
    fn replace(&self, dead: Arc<Producer>) {
        match start(&self.settings, &self.config, &self.condition) {
            Ok(fresh) => {
                let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
                *producer = fresh;
                drop(producer);
                drop(dead);
                metrics::counter!("tokenmeter_log_producers_replaced_total").increment(1);
            }
            // Appends go on failing at the dead one until the next attempt.
            Err(error) => tracing::warn!(%error, "no new Kafka producer"),
        }
    }
}

impl Drop for KafkaEventLog {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the event log's producer panicked");
        }
    }
}

#[async_trait]
impl EventLog for KafkaEventLog {
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        trace: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let mut draft = Draft::with_capacity(events.len(), events.len() * 256);
        draft.outgoing.trace = trace.map(|trace| trace.to_string());
        for event in &events {
            let partition = self.partition_of(event.event.user_id);
            draft.push(partition, |body| record::encode(event, body));
        }
        let log_times = self.produce(draft).await?;
        if events.iter().zip(&log_times).any(|(event, log_time)| is_void(event, *log_time)) {
            return Err(AppendError::Lapsed);
        }
        reached("log::confirmed").await;
        Ok(log_times.into_iter().map(|log_time| Appended { log_time }).collect())
    }

    fn partition_of(&self, user: UserId) -> Partition {
        Partition::of(user, self.shared.settings.partitions)
    }
}

impl std::fmt::Debug for KafkaEventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaEventLog").field("topic", &self.shared.topic).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_producer_that_cannot_go_on_is_replaced_and_fails_what_was_on_its_way() {
        // Bound, so that nobody else is there; it never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = KafkaSettings::new(silent.local_addr().unwrap().to_string());
        let log = Arc::new(KafkaEventLog::open(&settings).unwrap());
        let first = Arc::downgrade(&log.shared.producer.read().unwrap());
        let appending = log.clone();
        let tick = Tick { horizon: metering::usage::Horizon::Ever };
        let append =
            tokio::spawn(async move { appending.append_tick(Partition::SINGLE, tick).await });
        tokio::task::yield_now().await;
        let started = Instant::now();
        first.upgrade().unwrap().context().fatal.store(true, Ordering::Relaxed);
        let error = append.await.unwrap().unwrap_err();
        assert!(error.reason.contains("Purged"), "{error}");
        assert!(started.elapsed() < MESSAGE_TIMEOUT, "{:?}", started.elapsed());
        while first.upgrade().is_some() {
            assert!(started.elapsed() < PATIENCE);
            tokio::task::yield_now().await;
        }
        let next = log.shared.producer.read().unwrap().clone();
        assert!(!next.context().fatal.load(Ordering::Relaxed));
        // What was given up with the old one says nothing against the new one once brokers answer it.
        assert!(log.is_failing());
        log.shared.condition.found();
        assert!(!log.is_failing());
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn a_program_without_tls_says_so_when_it_is_asked_for_tls() {
        let mut settings = KafkaSettings::new("127.0.0.1:9092");
        settings.client_options.insert("security.protocol".to_owned(), "ssl".to_owned());
        let refused = KafkaEventLog::open(&settings).unwrap_err();
        assert!(refused.to_string().contains("`tls`"), "{refused}");
    }

    #[tokio::test]
    #[cfg(feature = "tls")]
    async fn a_program_with_tls_takes_its_settings() {
        for (protocol, mechanism) in [("ssl", "PLAIN"), ("sasl_ssl", "SCRAM-SHA-512")] {
            let mut settings = KafkaSettings::new("127.0.0.1:9092");
            let options = [
                ("security.protocol", protocol),
                ("sasl.mechanism", mechanism),
                ("sasl.username", "tokenmeter"),
                ("sasl.password", "secret"),
            ];
            settings.client_options =
                options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            KafkaEventLog::open(&settings).unwrap();
        }
    }
}
