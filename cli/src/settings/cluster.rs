//! The four servers of a cluster.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use stores::kafka::KafkaSettings;
use stores::redis::OnOutage;

use super::{Reader, parse};

/// What chooses the cluster: all of them, or none.
const SERVERS: [&str; 4] = ["kafka-brokers", "redis-url", "clickhouse-url", "postgres-url"];

/// Where the four servers are, and how they are used.
#[derive(Clone, Debug)]
pub(crate) struct ClusterSettings {
    pub(crate) kafka_brokers: String,
    pub(crate) redis_url: String,
    pub(crate) clickhouse_url: String,
    pub(crate) postgres_url: String,
    /// What `migrate` makes; a server reads from Postgres which topic is counted.
    pub(crate) topic: String,
    /// Of a topic that `migrate` makes.
    pub(crate) partitions: NonZeroU32,
    /// Copies of each partition; `None`: as many as there are brokers for, up to 3.
    pub(crate) replication: Option<u16>,
    pub(crate) kafka_options: BTreeMap<String, String>,
    pub(crate) session_timeout: Duration,
    pub(crate) duplicate_memory_bytes: usize,
    pub(crate) clock_bound: Duration,
    pub(crate) on_counter_outage: OnOutage,
}

impl ClusterSettings {
    /// Kafka as the settings have it.
    pub(crate) fn kafka(&self) -> KafkaSettings {
        KafkaSettings {
            topic: self.topic.clone(),
            partitions: self.partitions,
            session_timeout: self.session_timeout,
            client_options: self.kafka_options.clone(),
            ..KafkaSettings::new(self.kafka_brokers.clone())
        }
    }
}

impl Reader {
    /// The inner `None`: no cluster. The outer one: something is wrong.
    pub(super) fn cluster(&mut self) -> Option<Option<ClusterSettings>> {
        let servers = SERVERS.map(|name| self.value(name));
        let topic = self.one("kafka-topic", topic);
        let partitions = self.one("kafka-partitions", partitions);
        let replication = self.one("kafka-replication", replication);
        let kafka_options = self.many("kafka-option", kafka_option).into_iter().collect();
        let session_timeout = self.one("kafka-session-timeout", parse::positive_duration);
        let duplicate_memory = self.one("duplicate-memory", parse::count);
        let clock_bound = self.one("clock-bound", parse::positive_duration);
        let on_counter_outage = self.one("on-counter-outage", on_outage);
        let [Some(kafka_brokers), Some(redis_url), Some(clickhouse_url), Some(postgres_url)] =
            servers.clone()
        else {
            return self.no_cluster(&servers).then_some(None);
        };
        Some(Some(ClusterSettings {
            kafka_brokers,
            redis_url,
            clickhouse_url,
            postgres_url,
            topic: topic?,
            partitions: partitions?,
            replication: replication?,
            kafka_options,
            session_timeout: session_timeout?,
            duplicate_memory_bytes: duplicate_memory?.saturating_mul(1 << 20),
            clock_bound: clock_bound?,
            on_counter_outage: on_counter_outage?,
        }))
    }

    /// Whether none of the servers is given; a part of them is an error.
    fn no_cluster(&mut self, servers: &[Option<String>; 4]) -> bool {
        let named = SERVERS.into_iter().zip(servers);
        let (given, missing): (Vec<_>, Vec<_>) = named.partition(|(_, value)| value.is_some());
        if let Some((first, _)) = given.first() {
            let missing: Vec<_> = missing.iter().map(|(name, _)| format!("--{name}")).collect();
            let detail =
                format!("a cluster needs all four servers; missing: {}", missing.join(", "));
            self.wrong(first, detail);
        }
        given.is_empty()
    }
}

/// Kafka's own rule for names.
fn topic(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    let good =
        (1..=249).contains(&text.len()) && text.chars().all(fits) && text != "." && text != "..";
    good.then(|| text.to_owned())
        .ok_or_else(|| "must be 1 to 249 letters, digits, dots, dashes or underscores".to_owned())
}

fn partitions(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|number| (1..=1024).contains(number));
    number.and_then(NonZeroU32::new).ok_or_else(|| "must be a number from 1 to 1024".to_owned())
}

fn replication(text: &str) -> Result<Option<u16>, String> {
    match text.parse() {
        _ if text == "auto" => Ok(None),
        Ok(copies @ 1..=9) => Ok(Some(copies)),
        Ok(_) | Err(_) => Err("must be auto, or a number from 1 to 9".to_owned()),
    }
}

fn kafka_option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn on_outage(text: &str) -> Result<OnOutage, String> {
    match text {
        "refuse" => Ok(OnOutage::Refuse),
        "record" => Ok(OnOutage::Record),
        _ => Err("must be refuse or record".to_owned()),
    }
}
