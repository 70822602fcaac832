//! Asking where partitions end: many callers, one question to the brokers at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metering::Unavailable;
use metering::usage::Partition;
use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::oneshot;

use super::reader::Consumer;
use super::settings::QUERY_TIMEOUT;
use super::unavailable;

/// One caller's question.
type Question = (Partition, oneshot::Sender<Result<i64, Unavailable>>);

/// The ends of partitions, always asked for after the caller did.
pub(super) struct Ends {
    brokers: Arc<Brokers>,
    waiting: Mutex<Vec<Question>>,
    /// Held while the brokers are asked.
    asking: Arc<tokio::sync::Mutex<()>>,
}

/// Who is asked.
struct Brokers {
    topic: Arc<str>,
    consumer: Arc<Consumer>,
    /// Whether some partition had no leader when that was last asked: until all have one it is asked
    /// each time.
    leaderless: AtomicBool,
}

impl Ends {
    pub(super) fn new(topic: Arc<str>, consumer: Arc<Consumer>) -> Self {
        let brokers = Brokers { topic, consumer, leaderless: AtomicBool::new(false) };
        Self { brokers: Arc::new(brokers), waiting: Mutex::default(), asking: Arc::default() }
    }

    /// One past the last record, as Kafka counts.
    pub(super) async fn of(&self, partition: Partition) -> Result<i64, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.waiting().push((partition, answer));
        // Whoever comes first asks for all who wait by then, this caller included.
        let asking = self.asking.clone().lock_owned().await;
        let questions = std::mem::take(&mut *self.waiting());
        if !questions.is_empty() {
            let brokers = self.brokers.clone();
            // Goes on when this caller is gone: others wait for it.
            tokio::task::spawn_blocking(move || {
                brokers.ask(questions);
                drop(asking);
            });
        }
        answered.await.map_err(|_| unavailable("nobody asked for its end"))?
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Question>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Brokers {
    fn ask(&self, questions: Vec<Question>) {
        let asked = self.ends(&questions);
        for (partition, answer) in questions {
            let end = asked.clone().and_then(|ends| self.end_of(&ends, partition));
            // Nobody waits any more.
            drop(answer.send(end));
        }
    }

    /// The library answers for all partitions or for none: it waits for a leader of each until its time
    /// is over. So the others are asked for without those that have none, from then on at once.
    fn ends(&self, questions: &[Question]) -> Result<TopicPartitionList, Unavailable> {
        let all = questions.iter().map(|(partition, _)| i32::try_from(partition.number()));
        let all: BTreeSet<i32> = all.collect::<Result<_, _>>().map_err(unavailable)?;
        if !self.leaderless.load(Ordering::Relaxed)
            && let Ok(ends) = self.query(&all)
        {
            return Ok(ends);
        }
        let led = self.led()?;
        self.query(&all.intersection(&led).copied().collect())
    }

    fn query(&self, partitions: &BTreeSet<i32>) -> Result<TopicPartitionList, Unavailable> {
        let mut list = TopicPartitionList::new();
        for &number in partitions {
            // In this question an offset is a time, and the end is a time of its own.
            list.add_partition_offset(&self.topic, number, KafkaOffset::End)
                .map_err(unavailable)?;
        }
        if partitions.is_empty() {
            return Ok(list);
        }
        self.consumer.offsets_for_times(list, QUERY_TIMEOUT).map_err(unavailable)
    }

    /// The partitions that have a leader.
    fn led(&self) -> Result<BTreeSet<i32>, Unavailable> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), QUERY_TIMEOUT);
        let metadata = metadata.map_err(unavailable)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let (led, leaderless): (Vec<_>, Vec<_>) = partitions.partition(|one| one.leader() >= 0);
        self.leaderless.store(!leaderless.is_empty(), Ordering::Relaxed);
        Ok(led.into_iter().map(|one| one.id()).collect())
    }

    fn end_of(&self, ends: &TopicPartitionList, partition: Partition) -> Result<i64, Unavailable> {
        let number = i32::try_from(partition.number()).map_err(unavailable)?;
        let Some(end) = ends.find_partition(&self.topic, number) else {
            return Err(unavailable(format!("partition {partition} has no leader")));
        };
        end.error().map_err(unavailable)?;
        match end.offset() {
            KafkaOffset::Offset(offset) => Ok(offset),
            other => Err(unavailable(format!("partition {partition} ends at {other:?}"))),
        }
    }
}
