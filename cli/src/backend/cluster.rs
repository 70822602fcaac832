//! The cluster: Kafka, Redis, ClickHouse and Postgres.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::{Aggregator, Progress};
use anyhow::Context as _;
use edge::HealthCheck;
use ingest::LookUp;
use metering::Unavailable;
use metering::quota::{QuotaCounter, Seeds};
use metering::usage::Books as _;
use stores::cluster_ledger::{ClusterLedger, LedgerSettings};
use stores::kafka::{
    KafkaAdmin, KafkaEventLog, KafkaEventSource, KafkaSettings, TopicError, TopicId,
};
use stores::postgres::log_generations::{self, LogGeneration};
use stores::postgres::{PoolSettings, PostgresAccounts, PostgresEpochs};
use stores::redis::{RedisQuotaCounter, RedisSettings};
use stores::{clickhouse, postgres};

use super::{AccountStores, LedgerStores, Stores};
use crate::context::Context;
use crate::serve::StoreHealth;
use crate::settings::{ClusterSettings, Roles};

/// How long a server that starts waits for one that is away. Kafka misses a broker that is killed
/// after 9 s (`broker.session.timeout.ms`) and then elects leaders; a question for one that is not there
/// takes up to 10 s. A database that was killed looks through its log first.
const START_PATIENCE: Duration = Duration::from_secs(30);
const START_PAUSE: Duration = Duration::from_millis(500);

/// The four servers, migrated, and the log that is counted now.
pub(crate) struct Cluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) postgres: postgres::Database,
    pub(crate) clickhouse: clickhouse::Database,
    pub(crate) generation: LogGeneration,
}

impl Cluster {
    /// Both databases, whatever their schema.
    pub(crate) fn databases(
        settings: &ClusterSettings,
    ) -> anyhow::Result<(postgres::Database, clickhouse::Database)> {
        let postgres = postgres::Database::connect(&settings.postgres_url, PoolSettings::default());
        let clickhouse = clickhouse::Database::connect(&settings.clickhouse_url);
        Ok((postgres.context("--postgres-url")?, clickhouse.context("--clickhouse-url")?))
    }

    /// Connects to both databases and reads which log is counted.
    pub(crate) async fn connect(settings: &ClusterSettings) -> anyhow::Result<Self> {
        let (postgres, clickhouse) = Self::databases(settings)?;
        postgres::check(&postgres).await?;
        clickhouse::check(&clickhouse).await?;
        let generation = log_generations::current(&postgres).await?;
        let generation =
            generation.context("there is no event log yet: run `tokenmeter migrate`")?;
        let settings = settings.clone();
        Ok(Self { settings, postgres, clickhouse, generation })
    }

    /// [`Self::connect`] for a server.
    pub(crate) async fn wait_to_connect(settings: &ClusterSettings) -> anyhow::Result<Self> {
        patiently("the databases", || Self::connect(settings)).await
    }

    pub(crate) fn accounts(&self) -> AccountStores {
        AccountStores::of(&Arc::new(PostgresAccounts::new(self.postgres.clone())))
    }

    /// Call it within a runtime.
    pub(crate) fn ledger(&self) -> ClusterLedger {
        let settings = LedgerSettings {
            partitions: self.generation.partitions,
            generation: self.generation.number,
            duplicate_memory_bytes: self.settings.duplicate_memory_bytes,
            ..LedgerSettings::default()
        };
        ClusterLedger::new(self.clickhouse.clone(), self.postgres.clone(), settings)
    }

    pub(crate) fn kafka(&self) -> KafkaSettings {
        let Self { settings, generation, .. } = self;
        KafkaSettings {
            // Several installations may share the brokers.
            group: format!("tokenmeter-aggregator.{}", generation.topic),
            topic: generation.topic.clone(),
            partitions: generation.partitions,
            generation: generation.number,
            ..settings.kafka()
        }
    }

    /// The id of the topic that is counted, which every topic of that name is compared with.
    pub(crate) fn topic_id(&self) -> anyhow::Result<TopicId> {
        let id = self.generation.topic_id.parse();
        id.context("Postgres keeps an id of the event log that is none")
    }

    /// Refuses a topic that is not the one that was counted so far, or does not hold what was counted.
    /// Call it within a runtime.
    pub(crate) async fn check_topic(&self) -> anyhow::Result<()> {
        let admin = KafkaAdmin::new(&self.kafka())?;
        let (found, expected) = (admin.check_topic().await?, self.topic_id()?);
        if found != expected {
            let topic = self.generation.topic.clone();
            return Err(TopicError::Another { topic, found, expected }.into());
        }
        let books = self.ledger().partitions().await?;
        let cursors: Vec<_> = books.iter().map(|book| (book.partition, book.range.end)).collect();
        Ok(admin.check_reaches(&cursors).await?)
    }

    /// [`Self::check_topic`] for a server, which must start while the place of a broker that has
    /// died is taken by another.
    async fn wait_for_topic(&self) -> anyhow::Result<()> {
        patiently("the event log", || self.check_topic()).await
    }

    /// Call it within a runtime.
    pub(crate) fn counter(
        &self,
        context: &Context,
        ledger: &ClusterLedger,
        accounts: &AccountStores,
    ) -> anyhow::Result<Arc<RedisQuotaCounter>> {
        let seeds = Seeds {
            subscriptions: accounts.subscriptions.clone(),
            ledger: Arc::new(ledger.clone()),
            plans: Arc::clone(&context.settings.plans),
            clock: Arc::clone(&context.clock),
        };
        let settings = RedisSettings {
            clock_bound: self.settings.clock_bound,
            on_outage: self.settings.on_counter_outage,
            generation: self.generation.number,
            ..RedisSettings::new(self.settings.redis_url.clone(), self.generation.partitions)
        };
        let epochs = Arc::new(PostgresEpochs::new(self.postgres.clone(), self.generation.number));
        let clock = Arc::clone(&context.clock);
        let counter = RedisQuotaCounter::connect(settings, Arc::new(seeds), epochs, clock);
        Ok(Arc::new(counter.context("--redis-url")?))
    }

    /// What compares the books, without a part in counting.
    pub(crate) async fn observer(&self, context: &Context) -> anyhow::Result<Aggregator> {
        let (accounts, ledger) = (self.accounts(), self.ledger());
        let counter = self.counter(context, &ledger, &accounts)?;
        let (kafka, clock) = (self.kafka(), &context.clock);
        let log = Arc::new(KafkaEventLog::open(&kafka)?);
        let source = KafkaEventSource::observe(&kafka, log, Some(self.topic_id()?))?;
        let progress = Progress::new(Arc::clone(clock));
        for book in ledger.partitions().await? {
            progress.stands_at(book.partition, book.range.end);
        }
        Ok(Aggregator {
            source: Arc::new(source),
            ledger: Arc::new(ledger.clone()),
            alert_rules: context.settings.alert_rules(),
            lookup: Arc::new(ledger),
            counter,
            clock: Arc::clone(clock),
            progress: Arc::new(progress),
            log_retention: context.settings.log_retention,
            flush_interval: context.settings.flush_interval(),
        })
    }

    /// For a server that runs these parts. Call it within a runtime.
    pub(crate) async fn open(&self, context: &Context, roles: Roles) -> anyhow::Result<Stores> {
        self.wait_for_topic().await?;
        let (accounts, ledger) = (self.accounts(), self.ledger());
        let counter = self.counter(context, &ledger, &accounts)?;
        let kafka = self.kafka();
        let log = Arc::new(KafkaEventLog::open(&kafka)?);
        let source = if roles.aggregator {
            Some(KafkaEventSource::open(&kafka, log.clone(), Some(self.topic_id()?))?)
        } else {
            None
        };
        let health = health(&log, &counter);
        let ledger = Arc::new(ledger);
        Ok(Stores {
            accounts,
            ledger: LedgerStores {
                ledger: ledger.clone(),
                lookup: ledger.clone(),
                reports: ledger.clone(),
                alerts: ledger.clone(),
                books: ledger,
            },
            counter: counter as Arc<dyn QuotaCounter>,
            log,
            source: source.map(|source| Arc::new(source) as _),
            look_up: LookUp::BeforeRefusal,
            letters: None,
            health,
        })
    }
}

/// Asks again while a server is away.
async fn patiently<T, F>(server: &str, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match ask().await {
            Err(error) if is_away(&error) && Instant::now() < deadline => {
                tracing::warn!("the start waits for {server}: {error:#}");
                tokio::time::sleep(START_PAUSE).await;
            }
            answered => return answered,
        }
    }
}

/// Whether a server did not answer as it should, rather than answer with what must not be.
fn is_away(error: &anyhow::Error) -> bool {
    let topic = error.downcast_ref::<TopicError>();
    let postgres = error.downcast_ref::<postgres::SchemaError>();
    let clickhouse = error.downcast_ref::<clickhouse::SchemaError>();
    error.is::<Unavailable>()
        || matches!(topic, Some(TopicError::Unavailable(_)))
        || matches!(postgres, Some(postgres::SchemaError::Unavailable(_)))
        || matches!(clickhouse, Some(clickhouse::SchemaError::Unavailable(_)))
}

/// Degraded and not failed: what does not need them is served all the same.
fn health(log: &Arc<KafkaEventLog>, counter: &Arc<RedisQuotaCounter>) -> Vec<Arc<dyn HealthCheck>> {
    let (log, counter) = (log.clone(), counter.clone());
    vec![
        Arc::new(StoreHealth::new("event_log", move || {
            log.is_failing()
                .then_some("appends fail, or its brokers are away: tracking answers 503")
        })),
        Arc::new(StoreHealth::new("epochs", move || {
            (!counter.in_touch()).then_some("a replaced counter may be heard of late")
        })),
    ]
}
