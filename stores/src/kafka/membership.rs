//! This process's place in the consumer group: which partitions it reads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metering::usage::Partition;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::{Notify, watch};

use super::client;

/// Told by the group's rebalances; asked by whoever reads.
#[derive(Debug)]
pub(super) struct Membership {
    assigned: watch::Sender<BTreeSet<Partition>>,
    seats: Vec<Seat>,
    /// No broker was there when last heard of.
    away: AtomicBool,
}

/// One partition, ours or not.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Moves with every change: a position of before is no longer one.
    changes: AtomicU64,
    /// Records have come, or the partition was taken away.
    pub(super) news: Notify,
}

impl Seat {
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

impl Membership {
    pub(super) fn of(partitions: u32) -> Self {
        let seats = (0..partitions).map(|_| Seat::default()).collect();
        Self { assigned: watch::Sender::default(), seats, away: AtomicBool::new(false) }
    }

    pub(super) fn assigned(&self) -> watch::Receiver<BTreeSet<Partition>> {
        self.assigned.subscribe()
    }

    pub(super) fn is_assigned(&self, partition: Partition) -> bool {
        self.assigned.borrow().contains(&partition)
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    pub(super) fn is_back(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    pub(super) fn seat(&self, partition: Partition) -> Option<&Seat> {
        usize::try_from(partition.number()).ok().and_then(|number| self.seats.get(number))
    }

    /// Moves each partition's seat before and after the set is: who has looked at the set in
    /// between finds a seat that has moved.
    fn change(&self, partitions: &TopicPartitionList, kind: &'static str) {
        let changed: Vec<_> = partitions
            .elements()
            .iter()
            .filter_map(|element| u32::try_from(element.partition()).ok())
            .map(Partition::new)
            .collect();
        metrics::counter!("tokenmeter_log_rebalances_total", "kind" => kind).increment(1);
        self.move_seats(&changed);
        self.assigned.send_modify(|assigned| {
            for partition in &changed {
                match kind {
                    "assigned" => assigned.insert(*partition),
                    _ => assigned.remove(partition),
                };
            }
        });
        self.move_seats(&changed);
        let assigned = self.assigned.borrow().len();
        metrics::gauge!("tokenmeter_log_partitions")
            .set(u32::try_from(assigned).map_or(f64::MAX, f64::from));
        tracing::info!(kind, partitions = ?changed, assigned, "event log partitions changed");
    }

    fn move_seats(&self, partitions: &[Partition]) {
        for seat in partitions.iter().filter_map(|partition| self.seat(*partition)) {
            seat.changes.fetch_add(1, Ordering::SeqCst);
            seat.news.notify_one();
        }
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(RDKafkaErrorCode::AllBrokersDown) = error.rdkafka_error_code() {
            self.away.store(true, Ordering::Relaxed);
        }
        client::said(&error, reason);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let assigned = assign(consumer, partitions, cooperative);
                if assigned.is_ok() {
                    self.change(partitions, "assigned");
                }
                assigned
            }
            // Revoked, or anything that is no assignment: to read less is always safe.
            _ => {
                let lost = consumer.assignment_lost();
                self.change(partitions, if lost { "lost" } else { "revoked" });
                if cooperative {
                    consumer.incremental_unassign(partitions)
                } else {
                    consumer.unassign()
                }
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "the consumer group's change was not made");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "the group's offsets are for tools only, and were not noted");
        }
    }
}

/// Starts at the end, so that nothing is fetched until the caller says from where.
fn assign(
    consumer: &BaseConsumer<Membership>,
    partitions: &mut TopicPartitionList,
    cooperative: bool,
) -> KafkaResult<()> {
    partitions.set_all_offsets(KafkaOffset::End)?;
    if cooperative { consumer.incremental_assign(partitions) } else { consumer.assign(partitions) }
}
