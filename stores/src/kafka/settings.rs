//! How Kafka is reached, and what of its clients' options is ours to decide.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::offsets::Generation;

/// Every Kafka client of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `HOST:PORT`, several separated by commas.
    pub brokers: String,
    /// The topic that is the log.
    pub topic: String,
    /// How many partitions the topic has; fixed when it is made, for all processes alike.
    pub partitions: NonZeroU32,
    /// The consumer group of the aggregators.
    pub group: String,
    /// Which generation of the log this topic is: the high bits of every offset that is stored.
    pub generation: u16,
    /// How long the group waits for a silent aggregator before others take its partitions over.
    pub session_timeout: Duration,
    /// How many records all partitions together prefetch for the reader: bounds memory. When a
    /// partition's share waits, the fetch of that partition waits.
    pub prefetched_records_max: u32,
    /// Passed to every client as it is: `security.protocol`, `sasl.*`, `ssl.*`, … (librdkafka's
    /// names). Options that the promises of the log rest on are refused.
    pub client_options: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// The settings of DESIGN: topic `usage-events.v1`, 64 partitions, generation 0.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic: "usage-events.v1".to_owned(),
            partitions: NonZeroU32::MIN.saturating_add(63),
            group: "tokenmeter-aggregator".to_owned(),
            generation: 0,
            session_timeout: Duration::from_secs(10),
            prefetched_records_max: 40_000,
            client_options: BTreeMap::new(),
        }
    }
}

/// The settings make no Kafka client. Nothing was connected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SettingError {
    /// The log's promises rest on it.
    #[error("the Kafka option {0} is decided by tokenmeter and cannot be set")]
    Reserved(String),
    /// The client library refuses an option or its value.
    #[error("the Kafka client refuses its settings: {0}")]
    Refused(String),
    /// The machine gave no thread.
    #[error("no thread for the Kafka client: {0}")]
    NoThread(String),
}

impl From<KafkaError> for SettingError {
    fn from(error: KafkaError) -> Self {
        let mut said = error.to_string();
        if cfg!(not(feature = "tls")) && said.contains("build time") {
            said.push_str(": this program was built without the feature `tls`");
        }
        Self::Refused(said)
    }
}

/// How long a record may be on its way before its delivery is given up. Well below
/// `ADMISSION_WINDOW`, so that a client learns of it while its admission is fresh.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a question to the brokers may take.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that has reached no broker for so long is replaced: when an answer of the cluster names
/// no broker at all, as while the only one is fenced for a moment, the library removes all it knows
/// and never looks for them again (<https://github.com/confluentinc/librdkafka/issues/5301>).
pub(super) const LOST: Duration = Duration::from_secs(10);

/// How often a producer that sends nothing is asked whether its brokers are there. More often finds
/// out sooner, and is a request more for each process.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The same once they are away.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long they may take to answer. Delivery reports wait meanwhile.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the broker gathers records for a fetch: counting them in larger portions takes less of
/// its time, and of ours. A partition that is sought waits for the fetch before.
const FETCH_WAIT: Duration = Duration::from_millis(50);

/// So many bytes wait for no more. Less than a partition gives at a time: a backlog is read at once.
const FETCH_BYTES_MIN: u32 = 64 << 10;

/// What one fetch brings of one partition: prefetched records go past their bound by as much.
const FETCH_PARTITION_BYTES_MAX: u32 = 256 << 10;

/// Room for all prefetched values: only large events come near it.
const PREFETCHED_KIBIBYTES_MAX: u32 = 64 << 10;

/// A share so small that each fetch would exceed it makes the fetch stutter.
const PREFETCHED_RECORDS_MIN: u32 = 1_000;

/// Without these the log would lose, repeat, reorder or skip records, or answer late.
const RESERVED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "request.required.acks",
    "retries",
    "session.timeout.ms",
    "transactional.id",
];

impl KafkaSettings {
    pub(super) fn generation(&self) -> Generation {
        Generation::new(self.generation)
    }

    /// What all clients have in common.
    pub(super) fn client(&self) -> Result<ClientConfig, SettingError> {
        if let Some(option) = self.client_options.keys().find(|name| is_reserved(name)) {
            return Err(SettingError::Reserved(option.clone()));
        }
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tokenmeter")
            .set("allow.auto.create.topics", "false")
            // A server that is stopped, or a network that swallows packets, answers nothing.
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            // The library's 10 s would outlast a broker's restart by far.
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in &self.client_options {
            config.set(name, value);
        }
        Ok(config)
    }

    pub(super) fn producer(&self) -> Result<ClientConfig, SettingError> {
        let mut config = self.client()?;
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", millis(MESSAGE_TIMEOUT))
            // What comes meanwhile waits for the batch before it, not for a timer.
            .set("linger.ms", "0")
            // Retries wait for a leader that moves; each must leave time for the next.
            .set("retry.backoff.max.ms", "500")
            // Above the log's own bounds, which refuse whole requests.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2097151");
        Ok(config)
    }

    /// A consumer that fetches; it joins the group only when it subscribes.
    pub(super) fn consumer(&self) -> Result<ClientConfig, SettingError> {
        let partitions = self.partitions.get();
        let records = (self.prefetched_records_max / partitions).max(PREFETCHED_RECORDS_MIN);
        let kibibytes =
            (PREFETCHED_KIBIBYTES_MAX / partitions).max(FETCH_PARTITION_BYTES_MAX >> 10);
        let heartbeat = self.session_timeout / 5;
        let mut config = self.client()?;
        config
            .set("group.id", &self.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(self.session_timeout))
            .set("heartbeat.interval.ms", millis(heartbeat))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // What is read then is refused as a gap. `error` would stop the partition's fetch for
            // good: the library does not seek what it has stopped.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_uncommitted")
            .set("fetch.wait.max.ms", millis(FETCH_WAIT))
            .set("fetch.min.bytes", FETCH_BYTES_MIN.to_string())
            .set("fetch.message.max.bytes", FETCH_PARTITION_BYTES_MAX.to_string())
            .set("queued.min.messages", records.to_string())
            .set("queued.max.messages.kbytes", kibibytes.to_string())
            // The library's second would be a second without records after each full queue.
            .set("fetch.queue.backoff.ms", "5");
        Ok(config)
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

fn millis(span: Duration) -> String {
    span.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_rests_on_cannot_be_set() {
        for option in ["acks", "auto.offset.reset", "enable.idempotence"] {
            let mut settings = KafkaSettings::new("127.0.0.1:9092");
            settings.client_options.insert(option.to_owned(), "1".to_owned());
            let refused = settings.producer().unwrap_err();
            assert!(matches!(&refused, SettingError::Reserved(name) if name == option));
        }
    }

    #[test]
    fn other_options_are_passed_on() {
        let mut settings = KafkaSettings::new("127.0.0.1:9092");
        settings.client_options.insert("sasl.username".to_owned(), "meter".to_owned());
        for config in [settings.producer().unwrap(), settings.consumer().unwrap()] {
            assert_eq!(config.get("sasl.username"), Some("meter"));
        }
    }

    #[test]
    fn prefetched_records_are_shared_out_among_the_partitions() {
        let mut settings = KafkaSettings::new("127.0.0.1:9092");
        settings.partitions = NonZeroU32::new(4).unwrap();
        assert_eq!(settings.consumer().unwrap().get("queued.min.messages"), Some("10000"));
        settings.prefetched_records_max = 1;
        assert_eq!(settings.consumer().unwrap().get("queued.min.messages"), Some("1000"));
    }
}
