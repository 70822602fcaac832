//! `tokenmeter dead-letters`: records that were set aside, listed and appended again.
//!
//! On a single node appending is the log's owner's work: the running server does it, asked over its
//! operations listener; without a server, and in a cluster, this process opens the log itself.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use edge::{Problem, Routes, Success};
use metering::Unavailable;
use metering::time::Clock;
use metering::usage::{AdmittedEvent, AppendError, DeadLetters, EventLog, Flag, ListedDeadLetter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stores::kafka::KafkaEventLog;
use stores::sqlite::SqliteEventLog;

use crate::backend::{Backend, Cluster, SingleNode};
use crate::commands::{DeadLettersCommand, Output};
use crate::context::Context;
use crate::data_dir::{DataDir, LOG};
use crate::ops_client;
use crate::output::{Outcome, complain, say, say_json, say_table};

/// Where the running server takes the order.
const PATH: &str = "/dead-letters/replay";

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Replayed {
    /// Appended again just now.
    replayed: u64,
    /// Appended again before.
    before: u64,
    /// No version of the codec reads them yet.
    undecodable: u64,
    /// Their id belongs to another event: again they would be set aside.
    event_id_reused: u64,
}

/// What appends dead letters again.
#[derive(Clone)]
pub(crate) struct Replayer {
    pub(crate) letters: Arc<dyn DeadLetters>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Replayer {
    /// For the operations listener.
    pub(crate) fn routes(self) -> Routes {
        Routes::new().route(PATH, post(replay_here)).with_state(self)
    }

    /// Appends one after another. When it is cut off between an append and its note, the next replay
    /// appends that one again, and it is a duplicate.
    async fn replay(&self) -> Result<Replayed, Unavailable> {
        let mut done = Replayed::default();
        for letter in self.letters.list().await? {
            if letter.replayed_at.is_some() {
                done.before += 1;
                continue;
            }
            if letter.reason == "event_id_reused" {
                done.event_id_reused += 1;
                continue;
            }
            let Some(event) = letter.event else {
                done.undecodable += 1;
                continue;
            };
            let now = self.clock.now();
            let flags = event.flags.with(Flag::Replayed);
            let again = AdmittedEvent { admitted_at: now, flags, ..*event };
            self.log.append(vec![again], None).await.map_err(|error| match error {
                AppendError::Unavailable(error) => error,
                AppendError::Lapsed => Unavailable::new("event_log", "it was too slow"),
            })?;
            self.letters.replayed(letter.partition, letter.offset, now).await?;
            done.replayed += 1;
        }
        Ok(done)
    }
}

async fn replay_here(State(replayer): State<Replayer>) -> Result<Success<Replayed>, Problem> {
    Ok(edge::ok(replayer.replay().await?))
}

pub(crate) fn run(context: &Context, command: &DeadLettersCommand) -> anyhow::Result<Outcome> {
    match command {
        DeadLettersCommand::List(output) => list(context, output),
        DeadLettersCommand::Replay(output) => replay(context, output),
    }
}

fn list(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let letters = context.backend()?.dead_letters(context)?;
    let letters = context.block_on(letters.list())?;
    if output.json {
        let letters: Vec<_> = letters.iter().map(shown).collect();
        say_json(&json!({"dead_letters": letters}))?;
        return Ok(Outcome::Success);
    }
    let row = |letter: &ListedDeadLetter| {
        let event = letter.event.as_ref();
        let event = event.map_or_else(|| "-".to_owned(), |event| event.event.event_id.to_string());
        let replayed = letter.replayed_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let time = letter.log_time.to_string();
        vec![letter.offset.to_string(), time, letter.reason.clone(), event, replayed]
    };
    let rows: Vec<_> = letters.iter().map(row).collect();
    say_table(&["offset", "logged", "reason", "event id", "replayed"], &rows);
    Ok(Outcome::Success)
}

fn shown(letter: &ListedDeadLetter) -> Value {
    let event = letter.event.as_ref().map(|admitted| {
        let event = &admitted.event;
        json!({
            "user_id": event.user_id,
            "event_id": event.event_id,
            "request_type": event.request_type,
            "model": event.model,
            "prompt_tokens": event.tokens.prompt,
            "completion_tokens": event.tokens.completion,
            "cached_tokens": event.tokens.cached,
            "reasoning_tokens": event.tokens.reasoning,
            "occurred_at": event.occurred_at,
        })
    });
    json!({
        "partition": letter.partition.number(),
        "offset": letter.offset.number(),
        "logged_at": letter.log_time,
        "reason": letter.reason,
        "detail": letter.detail,
        "bytes": letter.bytes,
        "event": event,
        "replayed_at": letter.replayed_at,
    })
}

async fn replay_in_cluster(context: &Context, cluster: &Cluster) -> anyhow::Result<Replayed> {
    cluster.check_topic().await?;
    let (letters, log) = (Arc::new(cluster.ledger()), KafkaEventLog::open(&cluster.kafka())?);
    let replayer = Replayer { letters, log: Arc::new(log), clock: context.clock.clone() };
    Ok(replayer.replay().await?)
}

fn replay_on_single_node(context: &Context, directory: &DataDir) -> anyhow::Result<Replayed> {
    if let Some(server) = directory.running_server()? {
        return Ok(serde_json::from_value(ops_client::post(&server, PATH)?)?);
    }
    let _lock = directory.lock()?;
    let log = SqliteEventLog::open(&directory.file(LOG), context.clock.clone())?;
    let letters = Arc::new(SingleNode::ledger(directory)?);
    let replayer = Replayer { letters, log: Arc::new(log), clock: context.clock.clone() };
    Ok(context.block_on(replayer.replay())?)
}

fn replay(context: &Context, output: &Output) -> anyhow::Result<Outcome> {
    let done = match context.backend()? {
        Backend::Cluster(cluster) => context.block_on(replay_in_cluster(context, &cluster))?,
        Backend::SingleNode(directory) => replay_on_single_node(context, &directory)?,
    };
    if output.json {
        say_json(&done)?;
    } else {
        let Replayed { replayed, before, undecodable, event_id_reused } = done;
        say(format!("{replayed} appended again, {before} were before"));
        if undecodable > 0 {
            complain(format!("{undecodable} cannot be read by this version"));
        }
        if event_id_reused > 0 {
            complain(format!(
                "{event_id_reused} have the id of another event: they stay set aside"
            ));
        }
    }
    Ok(Outcome::of(done.undecodable + done.event_id_reused == 0))
}

#[cfg(test)]
mod tests;
