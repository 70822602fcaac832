//! The client that reads: a member of the consumer group, replaced when it has lost all brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::usage::Partition;
use rdkafka::consumer::Consumer as _;
use tokio::sync::{Mutex, watch};

use super::client;
use super::ends::Ends;
use super::membership::{Membership, Seat};
use super::reader::{Consumer, Reader, Topic};
use super::settings::{KafkaSettings, LOST, SettingError};

/// How long the member listens to the group before it looks whether it is to stop.
const LISTEN: Duration = Duration::from_millis(100);

/// How often a member is asked whether it reaches a broker.
const CHECK: Duration = Duration::from_secs(3);

/// How long a broker may take to answer that.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// One client, and a reader for each partition.
pub(super) struct Member {
    pub(super) consumer: Arc<Consumer>,
    readers: Vec<Arc<Mutex<Reader>>>,
    pub(super) ends: Ends,
}

/// The member of now, and how to make the next.
pub(super) struct Members {
    now: watch::Sender<Arc<Member>>,
    settings: KafkaSettings,
    /// Whether they join the group.
    join: bool,
    stopped: AtomicBool,
}

impl Member {
    fn start(settings: &KafkaSettings, join: bool) -> Result<Self, SettingError> {
        let membership = Membership::of(settings.partitions.get());
        let consumer = settings.consumer()?.create_with_context(membership)?;
        let consumer: Arc<Consumer> = Arc::new(consumer);
        let topic = Topic::of(settings);
        let readers = (0..settings.partitions.get())
            .map(|number| Reader::new(&consumer, topic.clone(), Partition::new(number)))
            .map(|reader| reader.map(|reader| Arc::new(Mutex::new(reader))))
            .collect::<Result<_, _>>()
            .map_err(|error: Unavailable| SettingError::Refused(error.reason))?;
        if join {
            // After the readers: a queue that is split off later misses records.
            consumer.subscribe(&[&settings.topic])?;
        }
        Ok(Self { ends: Ends::new(topic.name, consumer.clone()), consumer, readers })
    }

    pub(super) fn membership(&self) -> &Membership {
        self.consumer.context()
    }

    /// The reader and the seat of a partition that is ours.
    pub(super) fn ours(&self, partition: Partition) -> Option<(Arc<Mutex<Reader>>, &Seat)> {
        let number = usize::try_from(partition.number()).ok()?;
        let reader = self.readers.get(number)?;
        let membership = self.membership();
        let seat = membership.seat(partition).filter(|_| membership.is_assigned(partition))?;
        Some((reader.clone(), seat))
    }

    /// Nothing came: because there is nothing, or because no broker is there?
    pub(super) async fn not_away(&self, partition: Partition) -> Result<(), Unavailable> {
        if self.membership().is_away() {
            self.ends.of(partition).await?;
            self.membership().is_back();
        }
        Ok(())
    }

    /// Serves what the group says, for a moment.
    fn listen(&self) {
        match self.consumer.poll(LISTEN) {
            None => {}
            Some(Err(error)) => client::group_error(&error),
            // Each partition has a queue of its own since before it was assigned.
            Some(Ok(_)) => tracing::error!("a record came outside of its partition's queue"),
        }
    }

    fn reaches_a_broker(&self, topic: &str) -> bool {
        self.consumer.fetch_metadata(Some(topic), CHECK_TIMEOUT).is_ok()
    }
}

impl Members {
    /// # Errors
    /// [`SettingError`]: an option is not the caller's, or the library refuses one.
    pub(super) fn start(settings: &KafkaSettings, join: bool) -> Result<Arc<Self>, SettingError> {
        let first = Member::start(settings, join)?;
        Ok(Arc::new(Self {
            now: watch::Sender::new(Arc::new(first)),
            settings: settings.clone(),
            join,
            stopped: AtomicBool::new(false),
        }))
    }

    pub(super) fn now(&self) -> Arc<Member> {
        self.now.borrow().clone()
    }

    /// This one's member, and each after it.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Member>> {
        self.now.subscribe()
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// A thread that serves one member after the other until they are stopped.
    pub(super) fn serve(self: Arc<Self>) -> Result<JoinHandle<()>, SettingError> {
        thread("kafka-group", move || {
            let mut reached = Instant::now();
            let mut checked = reached;
            while !self.stopped.load(Ordering::Relaxed) {
                let member = self.now();
                member.listen();
                if checked.elapsed() < CHECK {
                    continue;
                }
                if member.reaches_a_broker(&self.settings.topic) {
                    reached = Instant::now();
                }
                checked = Instant::now();
                if reached.elapsed() > LOST {
                    self.replace(member);
                    reached = Instant::now();
                }
            }
        })
    }

    /// What was the old member's is nobody's until the group has given it to the new one.
    fn replace(&self, lost: Arc<Member>) {
        match Member::start(&self.settings, self.join) {
            Ok(fresh) => drop(self.now.send_replace(Arc::new(fresh))),
            Err(error) => return tracing::warn!(%error, "no new Kafka consumer"),
        }
        tracing::warn!("no broker was reached any more: another Kafka consumer begins");
        metrics::counter!("tokenmeter_log_consumers_replaced_total").increment(1);
        // Its end takes a moment, and must not fall to whoever has it last: they are async.
        let ended = thread("kafka-lost", move || {
            while Arc::strong_count(&lost) > 1 {
                std::thread::sleep(LISTEN);
            }
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "the lost Kafka consumer ends here");
        }
    }
}

fn thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, SettingError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| SettingError::NoThread(error.to_string()))
}
