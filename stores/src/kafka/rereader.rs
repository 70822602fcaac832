//! Reading a stretch once more, beside the group: after a crash, and when the horizon grows.

use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::usage::{LogRecord, Partition};
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use super::client::Plain;
use super::reader::{Topic, check_range, refusal};
use super::unavailable;
use crate::record::Names;

/// Gives up when no record comes for so long, though there are some.
const STALLED: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A consumer that never joins the group. One stretch at a time.
pub(super) struct Rereader {
    config: ClientConfig,
    topic: Topic,
    /// Made when first needed, and anew after it has failed.
    consumer: Option<BaseConsumer<Plain>>,
    /// What the consumer gives next.
    stand: Option<(Partition, i64)>,
}

impl Rereader {
    pub(super) fn new(config: ClientConfig, topic: Topic) -> Self {
        Self { config, topic, consumer: None, stand: None }
    }

    /// The records `[start, end)`, at most `records_max`. Blocks on the brokers. To go on where the
    /// last stretch ended costs nothing.
    pub(super) fn read(
        &mut self,
        partition: Partition,
        (start, end): (i64, i64),
        records_max: usize,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        let count = usize::try_from(end.saturating_sub(start)).unwrap_or(0).min(records_max);
        if count == 0 {
            return Ok(Vec::new());
        }
        let continued = self.stand.take() == Some((partition, start));
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.config.create_with_context(Plain).map_err(unavailable)?,
        };
        if !continued {
            go_to(&consumer, &self.topic, partition, start)?;
        }
        let records = read(&consumer, &self.topic, (partition, start), count)?;
        let next = start.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
        if next < end {
            self.stand = Some((partition, next));
        } else {
            // Or it would go on to fetch what nobody asked for.
            consumer.unassign().map_err(unavailable)?;
        }
        self.consumer = Some(consumer);
        Ok(records)
    }
}

fn go_to(
    consumer: &BaseConsumer<Plain>,
    topic: &Topic,
    partition: Partition,
    start: i64,
) -> Result<(), Unavailable> {
    check_range(consumer, topic, partition, start)?;
    let number = i32::try_from(partition.number()).map_err(unavailable)?;
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(&topic.name, number, KafkaOffset::Offset(start))
        .map_err(unavailable)?;
    consumer.assign(&assignment).map_err(unavailable)
}

fn read(
    consumer: &BaseConsumer<Plain>,
    topic: &Topic,
    (partition, start): (Partition, i64),
    count: usize,
) -> Result<Vec<LogRecord>, Unavailable> {
    let (mut records, mut names) = (Vec::with_capacity(count), Names::default());
    let mut next = start;
    let mut last_came = Instant::now();
    while records.len() < count {
        match consumer.poll(POLL) {
            // What an earlier assignment left in the queue.
            Some(Ok(message)) if !is_of(partition, message.partition()) => {}
            Some(Ok(message)) => {
                records.push(topic.read(partition, next, &message, &mut names)?);
                next += 1;
                last_came = Instant::now();
            }
            Some(Err(error)) => return Err(refusal(topic, partition, next, &error)),
            None if last_came.elapsed() > STALLED => {
                return Err(unavailable(format!("partition {partition} gives no records")));
            }
            None => {}
        }
    }
    Ok(records)
}

fn is_of(partition: Partition, number: i32) -> bool {
    u32::try_from(number).is_ok_and(|number| number == partition.number())
}
