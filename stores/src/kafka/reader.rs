//! Reading one partition: its own queue of fetched records, and where in the log it stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::time::Timestamp;
use metering::usage::{LogRecord, Partition};
use rdkafka::Offset as KafkaOffset;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::{BaseConsumer, PartitionQueue};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _, Timestamp as KafkaTime};

use super::bounds::bounds;
use super::membership::Membership;
use super::offsets::Generation;
use super::settings::{KafkaSettings, QUERY_TIMEOUT};
use super::{NOT_LOG_TIME, unavailable};
use crate::record::{self, Names};

/// An assignment starts to be fetched a moment after it is known; until then it cannot be sought.
const SEEK_PAUSE: Duration = Duration::from_millis(10);

pub(super) type Consumer = BaseConsumer<Membership>;

/// The log as it is read: which topic, and how its offsets are counted.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) generation: Generation,
}

impl Topic {
    pub(super) fn of(settings: &KafkaSettings) -> Self {
        Self { name: settings.topic.as_str().into(), generation: settings.generation() }
    }
}

/// One partition's fetched records. One caller at a time.
pub(super) struct Reader {
    topic: Topic,
    partition: Partition,
    number: i32,
    consumer: Arc<Consumer>,
    /// Fetched records wait in here; when many do, the library fetches no more of this partition.
    queue: PartitionQueue<Membership>,
    stand: Option<Stand>,
}

/// What the queue gives next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stand {
    /// The seat's count of changes when this place was sought.
    changes: u64,
    next: i64,
}

impl Reader {
    /// The queue must be split off before the partition is first assigned: then it stays.
    pub(super) fn new(
        consumer: &Arc<Consumer>,
        topic: Topic,
        partition: Partition,
    ) -> Result<Self, Unavailable> {
        let number = i32::try_from(partition.number()).map_err(unavailable)?;
        let mut queue = consumer
            .split_partition_queue(&topic.name, number)
            .ok_or_else(|| unavailable(format!("no queue for partition {partition}")))?;
        let heard = consumer.context().clone();
        queue.set_nonempty_callback(move || {
            if let Some(seat) = heard.seat(partition) {
                seat.news.notify_one();
            }
        });
        Ok(Self { topic, partition, number, consumer: consumer.clone(), queue, stand: None })
    }

    /// Whether the queue goes on at `from`, under the assignment of now.
    pub(super) fn stands_at(&self, from: i64) -> bool {
        let changes = self.changes();
        self.stand.is_some_and(|stand| stand.next == from && stand.changes == changes)
    }

    fn changes(&self) -> u64 {
        self.consumer.context().seat(self.partition).map_or(0, super::membership::Seat::changes)
    }

    /// Goes to `from`. Blocks on the brokers.
    ///
    /// # Errors
    /// [`Unavailable`]: the log does not hold that place, or the partition is not ours.
    pub(super) fn seek(&mut self, from: i64) -> Result<(), Unavailable> {
        self.stand = None;
        let changes = self.changes();
        check_range(&self.consumer, &self.topic, self.partition, from)?;
        let deadline = Instant::now() + QUERY_TIMEOUT;
        loop {
            if self.changes() != changes || !self.consumer.context().is_assigned(self.partition) {
                return Err(not_ours(self.partition));
            }
            let place = KafkaOffset::Offset(from);
            match self.consumer.seek(&self.topic.name, self.number, place, QUERY_TIMEOUT) {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => return Err(unavailable(error)),
                Err(_) => std::thread::sleep(SEEK_PAUSE),
            }
        }
        self.stand = Some(Stand { changes, next: from });
        Ok(())
    }

    /// What is there, at most `records_max`; never waits. After an error the caller's next read
    /// seeks anew, and meets the error again if it lasts.
    pub(super) fn take(&mut self, records_max: usize) -> Result<Vec<LogRecord>, Unavailable> {
        let Some(mut stand) = self.stand else {
            return Err(unavailable("it was not sought"));
        };
        let (mut records, mut names) = (Vec::new(), Names::default());
        while records.len() < records_max {
            let Some(polled) = self.queue.poll(Duration::ZERO) else { break };
            let read = polled
                .map_err(|error| refusal(&self.topic, self.partition, stand.next, &error))
                .and_then(|message| {
                    self.topic.read(self.partition, stand.next, &message, &mut names)
                });
            match read {
                Ok(record) => records.push(record),
                // What came before is good; the error is met again where it stands.
                Err(_) if !records.is_empty() => {
                    self.stand = None;
                    return Ok(records);
                }
                Err(error) => {
                    self.stand = None;
                    return Err(error);
                }
            }
            stand.next += 1;
        }
        if self.changes() != stand.changes {
            self.stand = None;
            return Err(not_ours(self.partition));
        }
        self.stand = Some(stand);
        Ok(records)
    }
}

impl Topic {
    /// Checks that `message` is the record at `expected`, and decodes it.
    pub(super) fn read(
        &self,
        partition: Partition,
        expected: i64,
        message: &BorrowedMessage<'_>,
        names: &mut Names,
    ) -> Result<LogRecord, Unavailable> {
        let offset = self.generation.offset(message.offset())?;
        if message.offset() != expected {
            let expected = self.generation.offset(expected)?;
            return Err(unavailable(format!(
                "partition {partition} has a gap at {expected}: the next record is at {offset}"
            )));
        }
        let KafkaTime::LogAppendTime(millis @ 0..) = message.timestamp() else {
            return Err(unavailable(NOT_LOG_TIME));
        };
        let payload = record::payload(message.payload().unwrap_or_default(), names);
        Ok(LogRecord { offset, log_time: Timestamp::from_millis(millis), payload })
    }

    fn shown(&self, kafka: i64) -> String {
        self.generation.offset(kafka).map_or_else(|_| kafka.to_string(), |it| it.to_string())
    }
}

/// Refuses a place that the log does not reach, instead of any jump. Blocks on the brokers.
pub(super) fn check_range<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &Topic,
    partition: Partition,
    from: i64,
) -> Result<(), Unavailable> {
    let number = i32::try_from(partition.number()).map_err(unavailable)?;
    let (first, end) = bounds(consumer, &topic.name, number)?;
    if from < first {
        return Err(unavailable(format!(
            "partition {partition} does not hold the record at {} any more: it begins at {}",
            topic.shown(from),
            topic.shown(first)
        )));
    }
    if from > end {
        return Err(unavailable(format!(
            "partition {partition} ends at {}, before {}: it was cut off, or is another log",
            topic.shown(end),
            topic.shown(from)
        )));
    }
    Ok(())
}

pub(super) fn refusal(
    topic: &Topic,
    partition: Partition,
    at: i64,
    error: &KafkaError,
) -> Unavailable {
    let at = topic.shown(at);
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            unavailable(format!(
                "partition {partition} does not hold the record at {at}: its retention has passed, \
                 or the log was cut off or made anew"
            ))
        }
        _ => unavailable(format!("partition {partition} at {at}: {error}")),
    }
}

pub(super) fn not_ours(partition: Partition) -> Unavailable {
    unavailable(format!("partition {partition} is not assigned to this process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_gone_is_named() {
        let topic = Topic { name: "log".into(), generation: Generation::new(0) };
        let gone = KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset);
        let error = refusal(&topic, Partition::new(3), 17, &gone);
        assert!(error.reason.contains("partition 3 does not hold the record at 17"), "{error}");
    }
}
