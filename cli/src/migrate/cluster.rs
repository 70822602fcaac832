//! Databases, the topic, and which log is counted.

use anyhow::{Context as _, bail};
use serde_json::json;
use stores::kafka::{KafkaAdmin, TopicSpec};
use stores::postgres::log_generations::{self, LogGeneration};
use stores::{clickhouse, postgres};

use super::leaving::leave;
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
    let counted = Cluster::connect(settings).await?;
    if !new_log {
        counted.check_topic().await?;
        // Where leaving it was cut off.
        log_generations::set_left(&counted.postgres, current.number, false).await?;
        return Ok(current);
    }
    let number = current.number.checked_add(1).context("there were too many logs")?;
    let next = first_or_next(context, settings, number).await?;
    if let Some(number) = log_generations::of_topic(&counted.postgres, &next.topic_id).await? {
        bail!(
            "the topic {} is counted already, as generation {number} of the event log; name another \
             with --kafka-topic",
            next.topic
        );
    }
    leave(context, &counted).await?;
    Ok(next)
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
