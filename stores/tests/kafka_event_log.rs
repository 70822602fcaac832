//! The rule suite of the event log on a Kafka topic, and what only Kafka promises.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "rules are test code, though they stand outside of the test functions"
)]

#[macro_use]
#[path = "contract/rules.rs"]
mod rules;

#[macro_use]
mod contract {
    #[macro_use]
    pub(crate) mod event_log;
}
mod servers;

#[path = "kafka/appending.rs"]
mod appending;
#[path = "kafka/both.rs"]
mod both;
#[path = "kafka/group.rs"]
mod group;
#[path = "kafka/lost_brokers.rs"]
mod lost_brokers;
#[path = "kafka/reading.rs"]
mod reading;
#[path = "kafka/small_broker.rs"]
mod small_broker;
#[path = "kafka/topic.rs"]
mod topic;

event_log_contract!(crate::both::fresh().await);
