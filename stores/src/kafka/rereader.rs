//! Reading a stretch once more, beside the group: after a crash, and when the horizon grows.

use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::usage::{LogRecord, Partition};
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};

use super::client::Plain;
use super::reader::{Topic, check_range, refusal};
use super::unavailable;
use crate::record::Names;

/// Gives up when no record comes for so long, though there are some.
const STALLED: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// Reads stretches beside the group, one at a time.
pub(super) struct Rereader {
    config: ClientConfig,
    topic: Topic,
    /// Stands where the last stretch is to go on.
    stretch: Option<Stretch>,
}

/// A consumer that never joins the group, and what it gives next.
///
/// It is assigned its partition once and for all: the client library ends the process when a partition
/// is taken away, given and taken away again before the first has come to its end
/// (confluentinc/librdkafka#5573).
struct Stretch {
    consumer: BaseConsumer<Plain>,
    partition: Partition,
    next: i64,
}

impl Rereader {
    pub(super) fn new(config: ClientConfig, topic: Topic) -> Self {
        Self { config, topic, stretch: None }
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
        let mut stretch = match self.stretch.take() {
            Some(stretch) if (stretch.partition, stretch.next) == (partition, start) => stretch,
            other => {
                other.into_iter().for_each(Stretch::end);
                Stretch::begin(&self.config, &self.topic, partition, start)?
            }
        };
        let records = stretch.read(&self.topic, count)?;
        if stretch.next < end {
            self.stretch = Some(stretch);
        } else {
            // Or it would go on to fetch what nobody asked for.
            stretch.end();
        }
        Ok(records)
    }
}

impl Stretch {
    fn begin(
        config: &ClientConfig,
        topic: &Topic,
        partition: Partition,
        start: i64,
    ) -> Result<Self, Unavailable> {
        let consumer: BaseConsumer<_> = config.create_with_context(Plain).map_err(unavailable)?;
        check_range(&consumer, topic, partition, start)?;
        let number = i32::try_from(partition.number()).map_err(unavailable)?;
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&topic.name, number, KafkaOffset::Offset(start))
            .map_err(unavailable)?;
        consumer.assign(&assignment).map_err(unavailable)?;
        Ok(Self { consumer, partition, next: start })
    }

    fn read(&mut self, topic: &Topic, count: usize) -> Result<Vec<LogRecord>, Unavailable> {
        let (mut records, mut names) = (Vec::with_capacity(count), Names::default());
        let mut last_came = Instant::now();
        while records.len() < count {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    records.push(topic.read(self.partition, self.next, &message, &mut names)?);
                    self.next += 1;
                    last_came = Instant::now();
                }
                Some(Err(error)) if !is_of_a_connection(&error) => {
                    return Err(refusal(topic, self.partition, self.next, &error));
                }
                _ if last_came.elapsed() > STALLED => {
                    let partition = self.partition;
                    return Err(unavailable(format!("partition {partition} gives no records")));
                }
                _ => {}
            }
        }
        Ok(records)
    }

    /// Its client's end takes a tenth of a second, for which nobody waits.
    fn end(self) {
        let ended = std::thread::Builder::new().name("kafka-reread".to_owned());
        if let Err(error) = ended.spawn(move || drop(self)) {
            tracing::warn!(%error, "a Kafka consumer that read again ends here");
        }
    }
}

/// Whether the client goes on by itself, perhaps at another broker.
fn is_of_a_connection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(
        error.rdkafka_error_code(),
        Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
    )
}
