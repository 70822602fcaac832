//! One producer: what goes out through it, and what it reports.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use metering::Unavailable;
use metering::time::Timestamp;
use metering::trace::TraceParent;
use metering::usage::Partition;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders, Timestamp as KafkaTime};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::accounting::{Record, Room};
use super::condition::{Condition, has_leaders};
use super::lanes::{Lanes, Next};
use super::settings::{KafkaSettings, LOST};
use super::{NOT_LOG_TIME, client, unavailable};

pub(super) type Producer = BaseProducer<Deliveries>;

/// Sends a producer's records, and receives its delivery reports.
pub(super) struct Deliveries {
    topic: String,
    condition: Arc<Condition>,
    /// Whether a record has come to its end lately.
    reported: AtomicBool,
    /// Since when nobody has been reached.
    silent_since: Mutex<Option<Instant>>,
    /// Set once the producer will never send again.
    pub(super) fatal: AtomicBool,
    pub(super) room: Arc<Room>,
    lanes: Lanes<Letter>,
    /// Whose reports these are. While it is dropped it sends nothing any more.
    producer: OnceLock<Weak<Producer>>,
}

/// The records of one request as they go out.
pub(super) struct Outgoing {
    /// All values, one after the other.
    pub(super) body: Vec<u8>,
    /// In the header of each record, as text.
    pub(super) trace: Option<String>,
}

/// One record on its way to the producer.
pub(super) struct Letter {
    pub(super) outgoing: Arc<Outgoing>,
    /// Where its value lies in the body.
    pub(super) value: Range<usize>,
    pub(super) record: Record,
}

/// Starts a producer; it connects by itself.
pub(super) fn start(
    settings: &KafkaSettings,
    config: &ClientConfig,
    condition: &Arc<Condition>,
) -> Result<Arc<Producer>, KafkaError> {
    let partitions = usize::try_from(settings.partitions.get()).unwrap_or(usize::MAX);
    let deliveries = Deliveries {
        topic: settings.topic.clone(),
        condition: condition.clone(),
        reported: AtomicBool::new(false),
        silent_since: Mutex::default(),
        fatal: AtomicBool::new(false),
        room: Arc::new(Room::default()),
        lanes: Lanes::of(partitions),
        producer: OnceLock::new(),
    };
    let producer = Arc::new(Producer::from_config_and_context(config, deliveries)?);
    // Set once, here, before anything is posted.
    producer.context().producer.get_or_init(|| Arc::downgrade(&producer));
    Ok(producer)
}

impl Deliveries {
    /// Letters to one partition go out now, or with its next batch. Never blocks.
    pub(super) fn post(&self, partition: Partition, letters: Vec<Letter>) {
        self.send(self.lanes.enter(partition, letters));
    }

    /// Hands over what a lane let go. Without a producer the letters are dropped, which tells those
    /// who wait that it has stopped.
    fn send(&self, letters: Vec<Letter>) {
        if letters.is_empty() {
            return;
        }
        let Some(producer) = self.producer.get().and_then(Weak::upgrade) else { return };
        let mut going = VecDeque::from(letters);
        while let Some(letter) = going.pop_front() {
            if let Err((error, record)) = self.hand_over(&producer, letter) {
                going.extend(self.ended(&record, Err(self.failed(&error))));
            }
        }
    }

    fn hand_over(
        &self,
        producer: &Producer,
        Letter { outgoing, value, record }: Letter,
    ) -> Result<(), (KafkaError, Box<Record>)> {
        let value = outgoing.body.get(value).unwrap_or_default();
        // No partition has a number above the library's: it refuses this one.
        let partition = i32::try_from(record.partition.number()).unwrap_or(i32::MAX);
        let mut base =
            BaseRecord::<(), [u8], Box<Record>>::with_opaque_to(&self.topic, Box::new(record))
                .partition(partition)
                .payload(value);
        if let Some(trace) = &outgoing.trace {
            // Of its own for each record: the library takes it over.
            let header = Header { key: TraceParent::HEADER, value: Some(trace) };
            base = base.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        producer.send(base).map_err(|(error, base)| (error, base.delivery_opaque))
    }

    /// A record has come to its end. Answers what goes out after it.
    fn ended(&self, record: &Record, outcome: Result<Timestamp, Unavailable>) -> Vec<Letter> {
        let failed = outcome.as_ref().err().cloned();
        record.report(outcome);
        match self.lanes.leave(record.partition, failed) {
            Next::Go(letters) => letters,
            Next::Fail(letters, error) => {
                letters.iter().for_each(|letter| letter.record.report(Err(error.clone())));
                Vec::new()
            }
        }
    }

    /// Takes note of an error; answers what is said of the record.
    fn failed(&self, error: &KafkaError) -> Unavailable {
        let code = error.rdkafka_error_code();
        match code {
            Some(RDKafkaErrorCode::MessageTimedOut) => self.reached_nobody(),
            // Another producer takes its place, and looks.
            Some(RDKafkaErrorCode::Fatal) => {
                self.condition.lost();
                self.fatal.store(true, Ordering::Relaxed);
            }
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {
                self.condition.lost();
            }
            _ => self.condition.refused(),
        }
        metrics::counter!("tokenmeter_log_produce_errors_total", "reason" => label(code))
            .increment(1);
        unavailable(error)
    }

    /// A record has timed out, or nobody has answered a look, for the first time or again. If one
    /// partition's leader is away, records of the others come through in between.
    fn reached_nobody(&self) {
        let is_first = self.condition.lost();
        let mut since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        if is_first {
            *since = None;
        }
        if since.get_or_insert_with(Instant::now).elapsed() > LOST {
            self.fatal.store(true, Ordering::Relaxed);
        }
    }

    /// Looks whether the brokers are there, unless a record has come to its end since the last time:
    /// that has told more. Blocks.
    pub(super) fn look_when_idle(&self, producer: &Producer) {
        if self.reported.swap(false, Ordering::Relaxed) {
            return;
        }
        match has_leaders(producer, &self.topic) {
            Ok(true) => self.condition.found(),
            // Some records would not come through. Another producer would not help.
            Ok(false) => {
                self.condition.lost();
                *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            Err(error) => {
                tracing::debug!(%error, "a look at the event log's brokers");
                self.reached_nobody();
            }
        }
    }
}

/// A closed set: the metric's label.
fn label(code: Option<RDKafkaErrorCode>) -> &'static str {
    match code {
        Some(RDKafkaErrorCode::MessageTimedOut) => "timed_out",
        Some(RDKafkaErrorCode::QueueFull) => "queue_full",
        Some(RDKafkaErrorCode::Fatal) => "fatal",
        Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => "given_up",
        Some(
            RDKafkaErrorCode::NotEnoughReplicas | RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
        ) => "not_enough_replicas",
        Some(
            RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition,
        ) => "no_such_partition",
        // Events have some 6 KB at most, so only a broker or topic set far too small refuses one.
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => "too_large",
        _ => "other",
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(RDKafkaErrorCode::Fatal) = error.rdkafka_error_code() {
            tracing::warn!(reason, "the Kafka producer cannot go on: another takes its place");
            self.fatal.store(true, Ordering::Relaxed);
        } else {
            client::said(&error, reason);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Record>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, record: Box<Record>) {
        self.reported.store(true, Ordering::Relaxed);
        let outcome = match delivered {
            Ok(message) => match message.timestamp() {
                KafkaTime::LogAppendTime(millis) if millis >= 0 => {
                    self.condition.came_through();
                    Ok(Timestamp::from_millis(millis))
                }
                // The broker says so too of a repeat so old that it knows no time for it: stored,
                // but whether in time nobody can tell.
                KafkaTime::LogAppendTime(_)
                | KafkaTime::CreateTime(_)
                | KafkaTime::NotAvailable => Err(unavailable(NOT_LOG_TIME)),
            },
            Err((error, _)) => Err(self.failed(error)),
        };
        self.send(self.ended(&record, outcome));
    }
}
