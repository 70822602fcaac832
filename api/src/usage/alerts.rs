//! Alerts: who has used how much of their plan, and who was told.

use std::str::FromStr as _;

use axum::extract::State;
use edge::{Problem, Query, Success, ok};
use metering::time::Timestamp;
use metering::usage::{Alert, AlertId, AlertQuery, DeliveryState, ListedAlert};
use serde::{Deserialize, Serialize};

use super::{Me, UsageReader, parameters};
use crate::cursor;
use crate::extract::Admin;
use crate::state::Api;

#[derive(Deserialize)]
pub(crate) struct MyParameters {
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct AlertParameters {
    user_id: Option<String>,
    delivery: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct AlertPage<V> {
    data: Vec<V>,
    has_more: bool,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Retried {
    retried: u64,
}

/// `GET /api/alerts/me`
pub(crate) async fn alerts_of_me(
    State(api): State<Api>,
    Me(user): Me,
    Query(asked): Query<MyParameters>,
) -> Result<Success<AlertPage<Alert>>, Problem> {
    let query = AlertQuery { user_id: Some(user), ..AlertQuery::default() };
    page(&api, query, asked.limit, asked.cursor.as_deref(), |listed| listed.alert).await
}

/// `GET /api/alerts`
pub(crate) async fn alerts(
    State(api): State<Api>,
    _: UsageReader,
    Query(asked): Query<AlertParameters>,
) -> Result<Success<AlertPage<ListedAlert>>, Problem> {
    let user_id = parameters::user_id(asked.user_id.as_deref())?;
    let state =
        asked.delivery.as_deref().map(DeliveryState::from_str).transpose().map_err(|()| {
            Problem::parameter("delivery", "must be waiting, sent, muted or given_up")
        })?;
    let query = AlertQuery { user_id, state, ..AlertQuery::default() };
    page(&api, query, asked.limit, asked.cursor.as_deref(), |listed| listed).await
}

/// `POST /api/alerts/retry`
pub(crate) async fn retry(State(api): State<Api>, _: Admin) -> Result<Success<Retried>, Problem> {
    let retried = api.alerts.retry(api.clock.now()).await?;
    Ok(ok(Retried { retried }))
}

async fn page<V: Serialize>(
    api: &Api,
    mut query: AlertQuery,
    limit: Option<usize>,
    cursor: Option<&str>,
    shown: fn(ListedAlert) -> V,
) -> Result<Success<AlertPage<V>>, Problem> {
    let limit = cursor::rows_max(limit)?;
    let user = query.user_id.map(|user| user.to_string());
    let filters = ("alerts", user, query.state);
    query.after = cursor.map(|text| read_cursor(text, &filters)).transpose()?;
    // One more than is shown says whether there are more.
    query.rows_max = limit + 1;
    let mut rows = api.alerts.alerts(&query).await?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = match rows.last().filter(|_| has_more) {
        Some(ListedAlert { alert, .. }) => {
            let position = (alert.raised_at.as_millis(), alert.id());
            Some(cursor::encode(&position, &filters)?)
        }
        None => None,
    };
    let data = rows.into_iter().map(shown).collect();
    Ok(ok(AlertPage { data, has_more, next_cursor }))
}

fn read_cursor(text: &str, filters: &impl Serialize) -> Result<(Timestamp, AlertId), Problem> {
    let (millis, id): (i64, String) = cursor::decode(text, filters)?;
    let id = id.parse().map_err(|()| Problem::parameter("cursor", "names no alert"))?;
    Ok((Timestamp::from_millis(millis), id))
}
