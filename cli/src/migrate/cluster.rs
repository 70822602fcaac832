//! Databases, the topic, and which log is counted.

use anyhow::{Context as _, bail};
use serde_json::json;
use stores::kafka::{KafkaAdmin, KafkaSettings, TopicId, TopicSpec};
use stores::postgres::log_generations::{self, LogGeneration};
use stores::{clickhouse, postgres};

use crate::backend::Cluster;
use crate::commands::MigrateArgs;
use crate::context::Context;
use crate::output::{Outcome, say, say_json};
use crate::settings::ClusterSettings;

/// Copies of each partition where there are brokers for it, and how many of them must have a record
/// before it is acknowledged: one broker may fail.
const REPLICATION: u16 = 3;
const MIN_INSYNC: u16 = 2;

pub(super) fn migrate(
    context: &Context,
    settings: &ClusterSettings,
    args: &MigrateArgs,
) -> anyhow::Result<Outcome> {
    let (steps, log) = context.block_on(async {
        let (postgres, clickhouse) = Cluster::databases(settings)?;
        let steps = [postgres::migrate(&postgres).await?, clickhouse::migrate(&clickhouse).await?];
        let current = log_generations::current(&postgres).await?;
        let log = log(context, settings, current, args.new_log).await?;
        log_generations::start(&postgres, &log).await?;
        // Also when a migration before this one ended in between.
        let cluster = Cluster::connect(settings).await?;
        cluster.ledger().start_generation().await?;
        cluster.check_topic().await?;
        anyhow::Ok((steps, log))
    })?;
    let [postgres, clickhouse] = steps;
    let LogGeneration { number, topic, topic_id, partitions } = log;
    if args.output.json {
        say_json(&json!({
            "postgres_steps": postgres,
            "clickhouse_steps": clickhouse,
            "log": {"generation": number, "topic": topic, "topic_id": topic_id,
                    "partitions": partitions},
        }))?;
    } else {
        say(format!("Postgres    {postgres} steps applied"));
        say(format!("ClickHouse  {clickhouse} steps applied"));
        say(format!(
            "Kafka       topic {topic} with {partitions} partitions is generation {number} of the \
             event log"
        ));
    }
    Ok(Outcome::Success)
}

/// The log that is counted from now on: its topic is there, and as it must be.
async fn log(
    context: &Context,
    settings: &ClusterSettings,
    current: Option<LogGeneration>,
    new_log: bool,
) -> anyhow::Result<LogGeneration> {
    let Some(current) = current else {
        return first_or_next(context, settings, 0).await;
    };
    if new_log {
        let number = current.number.checked_add(1).context("there were too many logs")?;
        let next = first_or_next(context, settings, number).await?;
        if next.topic_id == current.topic_id {
            bail!(
                "the topic {} is the event log that is counted already; name another with \
                 --kafka-topic",
                next.topic
            );
        }
        return Ok(next);
    }
    let kafka = KafkaSettings {
        topic: current.topic.clone(),
        partitions: current.partitions,
        ..settings.kafka()
    };
    let admin = KafkaAdmin::new(&kafka)?;
    let found = admin.check_topic().await?;
    let expected: TopicId = current.topic_id.parse()?;
    if found != expected {
        bail!(
            "the topic {} is not the event log that was counted so far ({found}, not {expected}): \
             it was made anew, and what was in it and not counted is lost. `tokenmeter migrate \
             --new-log` begins to count the new one",
            current.topic
        );
    }
    Ok(current)
}

async fn first_or_next(
    context: &Context,
    settings: &ClusterSettings,
    number: u16,
) -> anyhow::Result<LogGeneration> {
    let kafka = settings.kafka();
    let admin = KafkaAdmin::new(&kafka)?;
    let replication = match settings.replication {
        Some(copies) => copies,
        None if admin.describe().await?.brokers.len() >= usize::from(REPLICATION) => REPLICATION,
        None => 1,
    };
    let min_insync = if replication >= REPLICATION { MIN_INSYNC } else { 1 };
    let retention = context.settings.log_retention;
    let topic_id = admin.ensure_topic(TopicSpec { replication, min_insync, retention }).await?;
    let (topic, partitions) = (kafka.topic, kafka.partitions);
    Ok(LogGeneration { number, topic, topic_id: topic_id.to_string(), partitions })
}
