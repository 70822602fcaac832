//! Asking where partitions end: many callers, one question to the brokers at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use metering::Unavailable;
use metering::usage::Partition;
use rdkafka::consumer::Consumer as _;
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::oneshot;

use super::bounds;
use super::reader::Consumer;
use super::settings::QUERY_TIMEOUT;
use super::unavailable;

/// One caller's question.
type Question = (Partition, oneshot::Sender<Result<i64, Unavailable>>);

/// The ends of partitions, always asked for after the caller did.
pub(super) struct Ends {
    topic: Arc<str>,
    consumer: Arc<Consumer>,
    waiting: Mutex<Vec<Question>>,
    /// Held while the brokers are asked.
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl Ends {
    pub(super) fn new(topic: Arc<str>, consumer: Arc<Consumer>) -> Self {
        Self { topic, consumer, waiting: Mutex::default(), asking: Arc::default() }
    }

    /// One past the last record, as Kafka counts.
    pub(super) async fn of(&self, partition: Partition) -> Result<i64, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.waiting().push((partition, answer));
        // Whoever comes first asks for all who wait by then, this caller included.
        let asking = self.asking.clone().lock_owned().await;
        let questions = std::mem::take(&mut *self.waiting());
        if !questions.is_empty() {
            let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
            // Goes on when this caller is gone: others wait for it.
            tokio::task::spawn_blocking(move || {
                ask(&consumer, &topic, questions);
                drop(asking);
            });
        }
        answered.await.map_err(|_| unavailable("nobody asked for its end"))?
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Question>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(consumer: &Consumer, topic: &str, questions: Vec<Question>) {
    let error = match query(consumer, topic, &questions) {
        Ok(ends) => return answer(Ok(ends), topic, questions),
        Err(error) => error,
    };
    // One leader that does not answer leaves all without an answer: then each is asked apart.
    let groups = by_leader(consumer, topic, questions);
    let is_apart = groups.len() > 1;
    std::thread::scope(|scope| {
        for questions in groups {
            let error = error.clone();
            scope.spawn(move || {
                let asked = if is_apart { query(consumer, topic, &questions) } else { Err(error) };
                answer(asked, topic, questions);
            });
        }
    });
}

fn answer(asked: Result<TopicPartitionList, Unavailable>, topic: &str, questions: Vec<Question>) {
    for (partition, answer) in questions {
        let end = asked.clone().and_then(|ends| bounds::found(&ends, topic, number(partition)?));
        // Nobody waits any more.
        drop(answer.send(end));
    }
}

/// Those of partitions that the same broker leads together, as far as anybody says.
fn by_leader(consumer: &Consumer, topic: &str, questions: Vec<Question>) -> Vec<Vec<Question>> {
    let found = consumer.fetch_metadata(Some(topic), QUERY_TIMEOUT).ok();
    let topic = found.as_ref().and_then(|found| found.topics().first());
    let partitions = topic.map_or(&[][..], MetadataTopic::partitions);
    let leaders: BTreeMap<_, _> = partitions.iter().map(|one| (one.id(), one.leader())).collect();
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for question in questions {
        let number = number(question.0).ok();
        let leader = number.and_then(|number| leaders.get(&number));
        groups.entry(leader).or_default().push(question);
    }
    groups.into_values().collect()
}

fn query(
    consumer: &Consumer,
    topic: &str,
    questions: &[Question],
) -> Result<TopicPartitionList, Unavailable> {
    let partitions: BTreeSet<_> = questions.iter().map(|(partition, _)| partition).collect();
    let numbers = partitions.into_iter().map(|partition| number(*partition));
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    bounds::query(consumer, topic, numbers, KafkaOffset::End).map_err(unavailable)
}

fn number(partition: Partition) -> Result<i32, Unavailable> {
    i32::try_from(partition.number()).map_err(unavailable)
}
