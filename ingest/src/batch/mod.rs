//! `POST /api/tokens/track/batch`: many events of any users in one request.

mod room;
mod split;
mod users;

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use edge::{Caller, Code, Problem, Query, json};
use http::{HeaderMap, HeaderValue, StatusCode};
use metering::accounts::Scope;
use metering::usage::EventId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Ingest;
use crate::candidate::{Candidate, idempotency_key};
use crate::record::Outcome;
pub(crate) use room::Room;
use split::{Format, Item};

/// Events of one batch: one admission and one append is made of all of them, which others wait for.
pub const EVENTS_MAX: usize = 10_000;

/// Bytes of a batch, decoded: about 800 for each event, held in memory until it is answered.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Batches from this size on are parsed on a thread for blocking work, so that single events do not
/// wait behind them.
const BLOCKING_BYTES_MIN: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    verbose: Option<bool>,
}

/// `POST /api/tokens/track/batch`
pub(crate) async fn track(
    State(ingest): State<Ingest>,
    caller: Caller,
    Query(options): Query<Options>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let answer = answer(&ingest, &caller, options.verbose.unwrap_or(false), request).await;
    ingest.metrics().batch_seconds.record(started.elapsed());
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    ingest: &Ingest,
    caller: &Caller,
    verbose: bool,
    request: Request,
) -> Result<Response, Problem> {
    if let Caller::Service { .. } = caller {
        caller.require(Scope::Ingest)?;
    }
    let (parts, body) = request.into_parts();
    let format = format_of(&parts.headers)?;
    let key = idempotency_key(&parts.headers)?;
    let _room = ingest.batch_room().take(&parts.headers).await?;
    let body = edge::body::read(body, &parts.headers, BATCH_BYTES_MAX).await?;
    let items = if body.len() < BLOCKING_BYTES_MIN {
        split::read(&body, format)?
    } else {
        let reading = tokio::task::spawn_blocking(move || split::read(&body, format));
        reading.await.map_err(Problem::internal)??
    };
    if items.is_empty() {
        return Err(Problem::field("#", "required", "a batch must have at least one event"));
    }
    #[allow(clippy::cast_precision_loss, reason = "at most 10 000")]
    ingest.metrics().batch_records.record(items.len() as f64);
    let batch = Batch::new(ingest, caller, items, key.as_deref()).await?;
    let report = batch.record(ingest, verbose).await?;
    report.count(ingest);
    Ok(json::response(StatusCode::OK, &report))
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    if json::is_json(headers) {
        return Ok(Format::Array);
    }
    let ndjson = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
    let given = json::media_type(headers).unwrap_or("");
    if ndjson.iter().any(|name| given.eq_ignore_ascii_case(name)) {
        return Ok(Format::Lines);
    }
    let accepted = HeaderValue::from_static("application/json, application/x-ndjson");
    Err(Problem::new(
        Code::UnsupportedMediaType,
        "a batch must be application/json or application/x-ndjson",
    )
    .with_header(json::ACCEPT_POST, accepted))
}

/// One row of the answer.
#[derive(Debug, Serialize)]
struct Row {
    index: usize,
    event_id: Option<EventId>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip)]
    refused: Option<Code>,
}

impl Row {
    fn taken(index: usize, event_id: EventId, status: &'static str) -> Self {
        let event_id = Some(event_id);
        Self { index, event_id, status, code: None, detail: None, refused: None }
    }

    fn rejected(index: usize, event_id: Option<EventId>, problem: &Problem) -> Self {
        Self {
            index,
            event_id,
            status: "rejected",
            code: Some(problem.code().as_str()),
            detail: Some(problem.detail().to_owned()),
            refused: Some(problem.code()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    success: bool,
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    results: Vec<Row>,
}

impl Report {
    fn count(&self, ingest: &Ingest) {
        ingest.metrics().accepted(self.accepted);
        ingest.metrics().duplicates(self.duplicates);
        for code in self.results.iter().filter_map(|row| row.refused) {
            ingest.metrics().refused(code);
        }
    }
}

/// A batch that was read: what goes on to the counter, and what is refused already.
struct Batch {
    /// With its place in the batch.
    places: Vec<usize>,
    candidates: Vec<Candidate>,
    rejected: Vec<Row>,
    count: usize,
}

impl Batch {
    async fn new(
        ingest: &Ingest,
        caller: &Caller,
        items: Vec<Item>,
        key: Option<&str>,
    ) -> Result<Self, Problem> {
        let reporters = users::reporters(ingest, caller, &items).await?;
        let now = ingest.parts().clock.now();
        let count = items.len();
        let (places, candidates) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut batch = Self { places, candidates, rejected: vec![], count };
        for (index, (item, reporter)) in items.into_iter().zip(reporters).enumerate() {
            let input = match item {
                Item::Read(input) => input,
                Item::Bad { event_id, problem } => {
                    batch.rejected.push(Row::rejected(index, event_id, &problem));
                    continue;
                }
            };
            let given_id = match (&input.event_id, key) {
                (None, Some(key)) => EventId::new(&format!("{key}-{index}")).map(Some),
                _ => Ok(None),
            };
            let wrong_id = |error: metering::usage::NotAnId| {
                Problem::parameter("Idempotency-Key", error.to_string())
            };
            match reporter.and_then(|reporter| Ok((reporter, given_id.map_err(wrong_id)?))) {
                Ok((reporter, given_id)) => {
                    let candidate = Candidate::new(ingest, *input, given_id, reporter, now);
                    batch.places.push(index);
                    batch.candidates.push(candidate);
                }
                Err(problem) => {
                    batch.rejected.push(Row::rejected(index, input.event_id, &problem));
                }
            }
        }
        Ok(batch)
    }

    async fn record(self, ingest: &Ingest, verbose: bool) -> Result<Report, Problem> {
        let Self { places, candidates, rejected: mut results, count } = self;
        let made = candidates.iter().any(|candidate| candidate.made_id().is_some());
        let ids: Vec<EventId> = candidates.iter().map(|one| one.event.event_id.clone()).collect();
        let outcomes = match ingest.record(candidates).await {
            Ok(outcomes) => outcomes,
            Err(problem) => {
                ingest.metrics().unavailable(u64::try_from(count).unwrap_or(0));
                return Err(if made { with_ids(problem, &places, &ids, count) } else { problem });
            }
        };
        let (mut accepted, mut duplicates) = (0, 0);
        for ((index, event_id), outcome) in places.into_iter().zip(ids).zip(outcomes) {
            match outcome {
                Outcome::Accepted { .. } => {
                    accepted += 1;
                    if verbose {
                        results.push(Row::taken(index, event_id, "accepted"));
                    }
                }
                Outcome::Duplicate(_) => {
                    duplicates += 1;
                    results.push(Row::taken(index, event_id, "duplicate"));
                }
                Outcome::Refused(problem) => {
                    results.push(Row::rejected(index, Some(event_id), &problem));
                }
            }
        }
        results.sort_unstable_by_key(|row| row.index);
        let rejected = results.iter().filter(|row| row.refused.is_some()).count();
        let rejected = u64::try_from(rejected).unwrap_or(0);
        Ok(Report { success: true, accepted, duplicates, rejected, results })
    }
}

/// The ids under which a retry is safe, in the order of the batch; null where there is no event.
fn with_ids(problem: Problem, places: &[usize], ids: &[EventId], count: usize) -> Problem {
    let mut by_place = vec![Value::Null; count];
    for (place, id) in places.iter().zip(ids) {
        by_place[*place] = id.as_str().into();
    }
    problem.with_member("event_ids", by_place.into())
}
