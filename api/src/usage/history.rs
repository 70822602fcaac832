//! A user's events, newest first: pages of JSON, or all of them as CSV.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use edge::{Problem, Query, ok};
use futures::stream;
use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::{
    EventId, Flags, HistoryPosition, HistoryQuery, HistoryRow, ModelName, Offset, RequestType,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::format::Format;
use super::{Me, Subject, csv_body, parameters, subscription_of};
use crate::cursor;
use crate::state::Api;

/// Rows of CSV that are in memory at once, for each client that reads them.
const CSV_ROWS: usize = 1000;

#[derive(Deserialize)]
pub(crate) struct HistoryParameters {
    from: Option<String>,
    to: Option<String>,
    model: Option<String>,
    request_type: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct HistoryPage {
    data: Vec<EventView>,
    has_more: bool,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct EventView {
    event_id: EventId,
    request_type: RequestType,
    model: ModelName,
    prompt_tokens: u32,
    completion_tokens: u32,
    cached_tokens: u32,
    reasoning_tokens: u32,
    total_tokens: u64,
    occurred_at: Timestamp,
    received_at: Timestamp,
    flags: Flags,
    metadata: Option<Box<RawValue>>,
}

/// The columns of CSV: the members of [`EventView`].
const COLUMNS: [&str; 12] = [
    "event_id",
    "request_type",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "total_tokens",
    "occurred_at",
    "received_at",
    "flags",
    "metadata",
];

/// `GET /api/tokens/me/history`
pub(crate) async fn history_of_me(
    State(api): State<Api>,
    Me(user): Me,
    format: Format,
    Query(asked): Query<HistoryParameters>,
) -> Result<Response, Problem> {
    history(api, user, format, asked).await
}

/// `GET /api/users/{id}/tokens/history`
pub(crate) async fn history_of_user(
    State(api): State<Api>,
    Subject(user): Subject,
    format: Format,
    Query(asked): Query<HistoryParameters>,
) -> Result<Response, Problem> {
    subscription_of(&api, user).await?;
    history(api, user, format, asked).await
}

async fn history(
    api: Api,
    user: UserId,
    format: Format,
    asked: HistoryParameters,
) -> Result<Response, Problem> {
    let query = asked.query(user)?;
    match format {
        Format::Json => page(&api, query, &asked).await,
        Format::Csv => all_as_csv(api, query).await,
    }
}

async fn page(
    api: &Api,
    mut query: HistoryQuery,
    asked: &HistoryParameters,
) -> Result<Response, Problem> {
    let limit = cursor::rows_max(asked.limit)?;
    let filters = Filters::of(&query);
    query.after = asked.cursor.as_deref().map(|text| read_cursor(text, &filters)).transpose()?;
    // One more than is shown says whether there are more.
    query.rows_max = limit + 1;
    let mut rows = api.reports.history(&query).await?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = match rows.last().filter(|_| has_more) {
        Some(last) => Some(write_cursor(last.position, &filters)?),
        None => None,
    };
    let data = rows.into_iter().map(EventView::new).collect::<Result<_, _>>()?;
    Ok(ok(HistoryPage { data, has_more, next_cursor }).into_response())
}

/// Streams all rows, page by page through the store's index, so that a long history holds up
/// neither memory nor a read transaction. A page that fails breaks the connection: the client sees
/// that the rows are not all.
async fn all_as_csv(api: Api, mut query: HistoryQuery) -> Result<Response, Problem> {
    query.rows_max = CSV_ROWS;
    // The first page is read before the answer starts, so that its failure is an answer.
    let rows = api.reports.history(&query).await?;
    query.after = position_after(&rows);
    let mut first = csv_body::lines([COLUMNS])?;
    first.extend(csv_lines(&rows)?);
    let rest = stream::try_unfold((api, query), |(api, mut query)| async move {
        if query.after.is_none() {
            return Ok(None);
        }
        let rows = api.reports.history(&query).await.map_err(Problem::from).map_err(broken)?;
        query.after = position_after(&rows);
        let lines = csv_lines(&rows).map_err(broken)?;
        Ok::<_, std::io::Error>(Some((Bytes::from(lines), (api, query))))
    });
    let first = stream::iter([Ok(Bytes::from(first))]);
    Ok(csv_body::response(Body::from_stream(stream::StreamExt::chain(first, rest))))
}

/// Where to go on; `None` after the last page.
fn position_after(rows: &[HistoryRow]) -> Option<HistoryPosition> {
    rows.last().filter(|_| rows.len() == CSV_ROWS).map(|row| row.position)
}

/// What went wrong was logged when it became a problem.
fn broken(problem: Problem) -> std::io::Error {
    std::io::Error::other(problem.code().as_str())
}

fn csv_lines(rows: &[HistoryRow]) -> Result<Vec<u8>, Problem> {
    csv_body::lines(rows.iter().map(|row| {
        let tokens = row.tokens;
        let flags: Vec<_> = row.flags.iter().map(|flag| flag.as_str()).collect();
        [
            row.event_id.to_string(),
            row.request_type.to_string(),
            row.model.to_string(),
            tokens.prompt.to_string(),
            tokens.completion.to_string(),
            tokens.cached.to_string(),
            tokens.reasoning.to_string(),
            tokens.total().to_string(),
            row.position.occurred_at.to_string(),
            row.received_at.to_string(),
            flags.join(" "),
            row.metadata.as_ref().map_or(String::new(), |text| text.as_str().to_owned()),
        ]
    }))
}

impl EventView {
    fn new(row: HistoryRow) -> Result<Self, Problem> {
        let text = row.metadata.map(|metadata| metadata.as_str().to_owned());
        Ok(Self {
            event_id: row.event_id,
            request_type: row.request_type,
            model: row.model,
            prompt_tokens: row.tokens.prompt,
            completion_tokens: row.tokens.completion,
            cached_tokens: row.tokens.cached,
            reasoning_tokens: row.tokens.reasoning,
            total_tokens: row.tokens.total(),
            occurred_at: row.position.occurred_at,
            received_at: row.received_at,
            flags: row.flags,
            metadata: text.map(RawValue::from_string).transpose().map_err(Problem::internal)?,
        })
    }
}

impl HistoryParameters {
    fn query(&self, user_id: UserId) -> Result<HistoryQuery, Problem> {
        let from = parameters::instant("from", self.from.as_deref())?;
        let to = parameters::instant("to", self.to.as_deref())?;
        if let (Some(from), Some(to)) = (from, to) {
            parameters::in_order(from, to)?;
        }
        Ok(HistoryQuery {
            user_id,
            from,
            to,
            model: self.model.as_deref().map(ModelName::new),
            request_type: parameters::request_type(self.request_type.as_deref())?,
            after: None,
            rows_max: 0,
        })
    }
}

/// What a cursor is bound to.
#[derive(Serialize)]
struct Filters {
    list: &'static str,
    user_id: UserId,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    model: Option<ModelName>,
    request_type: Option<RequestType>,
}

impl Filters {
    fn of(query: &HistoryQuery) -> Self {
        let HistoryQuery { user_id, from, to, ref model, request_type, .. } = *query;
        Self { list: "history", user_id, from, to, model: model.clone(), request_type }
    }
}

/// The time in milliseconds and the offset of the last row shown.
fn write_cursor(position: HistoryPosition, filters: &Filters) -> Result<String, Problem> {
    cursor::encode(&(position.occurred_at.as_millis(), position.offset.number()), filters)
}

fn read_cursor(text: &str, filters: &Filters) -> Result<HistoryPosition, Problem> {
    let (millis, offset): (i64, u64) = cursor::decode(text, filters)?;
    // No log reaches so far, and no store could compare it.
    if i64::try_from(offset).is_err() {
        return Err(Problem::parameter("cursor", "must be a next_cursor of this list"));
    }
    let occurred_at = Timestamp::from_millis(millis);
    Ok(HistoryPosition { occurred_at, offset: Offset::new(offset) })
}
