//! Everybody's usage.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use edge::{Problem, Query, ok};
use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::Timestamp;
use metering::usage::{
    Analytics, AnalyticsQuery, Dimension, Granularity, ModelName, RequestType, SeriesRow,
    UsageReports, UsageTotals, UserTotal,
};
use serde::{Deserialize, Serialize};

use super::format::Format;
use super::{UsageReader, csv_body, parameters};
use crate::state::Api;

/// The span when none is asked for.
const SPAN_DEFAULT: Duration = Duration::from_secs(30 * 86_400);

/// No event is further ahead: the door refuses it.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// The largest users when not said how many.
const TOP_DEFAULT: usize = 10;

/// Of the largest users at most so many.
const TOP_MAX: usize = 100;

#[derive(Deserialize)]
pub(crate) struct UsageParameters {
    from: Option<String>,
    to: Option<String>,
    granularity: Option<String>,
    group_by: Option<String>,
    model: Option<String>,
    plan: Option<String>,
    request_type: Option<String>,
    user_id: Option<String>,
    top: Option<usize>,
}

#[derive(Serialize)]
struct AnalyticsView {
    from: Timestamp,
    to: Timestamp,
    totals: TotalsView,
    previous: TotalsView,
    series: Vec<SeriesView>,
    top_users: Vec<UserView>,
}

#[derive(Serialize)]
struct TotalsView {
    events: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct SeriesView {
    start: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_type: Option<RequestType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    #[serde(flatten)]
    totals: TotalsView,
}

#[derive(Serialize)]
struct UserView {
    user_id: UserId,
    total_tokens: u64,
}

/// `GET /api/tokens/admin/usage`
pub(crate) async fn usage(
    State(api): State<Api>,
    _: UsageReader,
    format: Format,
    Query(asked): Query<UsageParameters>,
) -> Result<Response, Problem> {
    let query = asked.query(api.clock.now())?;
    let analytics = match asked.to {
        Some(_) => api.reports.analytics(&query).await?,
        None => until_now(&*api.reports, &query).await?,
    };
    match format {
        Format::Json => Ok(ok(AnalyticsView::new(&query, analytics)).into_response()),
        Format::Csv => series_as_csv(&query.group_by, &analytics.series),
    }
}

/// Answers a question whose end was not given.
///
/// The ledger answers whole days and hours from its summaries, and would read the events of the
/// running day one by one. No event is later than [`AHEAD_MAX`] from now, so the same is asked up
/// to the end of the day; and the span before begins at a full hour.
async fn until_now(
    reports: &dyn UsageReports,
    query: &AnalyticsQuery,
) -> Result<Analytics, Problem> {
    let whole_days = AnalyticsQuery { to: query.to.day().next().start(), ..query.clone() };
    let before = AnalyticsQuery {
        from: query.from.minus(query.to.since(query.from)).hour().start(),
        to: query.from,
        group_by: Vec::new(),
        top: 0,
        ..query.clone()
    };
    let (answer, before) =
        futures::try_join!(reports.analytics(&whole_days), reports.analytics(&before))?;
    Ok(Analytics { previous: before.totals, ..answer })
}

impl UsageParameters {
    fn query(&self, now: Timestamp) -> Result<AnalyticsQuery, Problem> {
        let to = parameters::instant("to", self.to.as_deref())?.unwrap_or(now.plus(AHEAD_MAX));
        // The last days are whole ones, so that the first bucket of the series is no fragment.
        let from = parameters::instant("from", self.from.as_deref())?
            .unwrap_or_else(|| to.minus(SPAN_DEFAULT).day().start());
        parameters::in_order(from, to)?;
        let granularity = granularity(self.granularity.as_deref())?;
        let group_by = group_by(self.group_by.as_deref())?;
        let user_id = parameters::user_id(self.user_id.as_deref())?;
        if granularity == Granularity::Hour {
            let no_hours = "users are counted by day and by month, not by hour";
            if group_by.contains(&Dimension::User) {
                return Err(Problem::parameter("group_by", no_hours));
            }
            if user_id.is_some() {
                return Err(Problem::parameter("user_id", no_hours));
            }
        }
        let top = self.top.unwrap_or(TOP_DEFAULT);
        if top > TOP_MAX {
            return Err(Problem::parameter("top", "must be from 0 to 100"));
        }
        Ok(AnalyticsQuery {
            from,
            to,
            granularity,
            group_by,
            model: self.model.as_deref().map(ModelName::new),
            plan: self.plan.as_deref().map(PlanName::new),
            request_type: parameters::request_type(self.request_type.as_deref())?,
            user_id,
            top,
        })
    }
}

fn granularity(text: Option<&str>) -> Result<Granularity, Problem> {
    match text {
        Some("hour") => Ok(Granularity::Hour),
        None | Some("day") => Ok(Granularity::Day),
        Some("month") => Ok(Granularity::Month),
        Some(_) => Err(Problem::parameter("granularity", "must be hour, day or month")),
    }
}

/// Sorted, without repeats; the empty text groups by nothing.
fn group_by(text: Option<&str>) -> Result<Vec<Dimension>, Problem> {
    let mut dimensions = Vec::new();
    for name in text.unwrap_or("").split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let found = DIMENSIONS.iter().find(|(_, its_name)| *its_name == name);
        let Some((dimension, _)) = found else {
            let detail = "must be a list of model, request_type, plan and user_id";
            return Err(Problem::parameter("group_by", detail));
        };
        dimensions.push(*dimension);
    }
    dimensions.sort_unstable();
    dimensions.dedup();
    Ok(dimensions)
}

/// As parameters and answers name them, in the order in which answers show them.
const DIMENSIONS: [(Dimension, &str); 4] = [
    (Dimension::Model, "model"),
    (Dimension::RequestType, "request_type"),
    (Dimension::Plan, "plan"),
    (Dimension::User, "user_id"),
];

impl AnalyticsView {
    fn new(query: &AnalyticsQuery, analytics: Analytics) -> Self {
        let Analytics { totals, previous, series, top_users } = analytics;
        Self {
            from: query.from,
            to: query.to,
            totals: totals.into(),
            previous: previous.into(),
            series: series.into_iter().map(SeriesView::from).collect(),
            top_users: top_users
                .into_iter()
                .map(|UserTotal { user_id, total_tokens }| UserView { user_id, total_tokens })
                .collect(),
        }
    }
}

impl From<UsageTotals> for TotalsView {
    fn from(totals: UsageTotals) -> Self {
        let UsageTotals { events, prompt_tokens, completion_tokens } = totals;
        Self { events, prompt_tokens, completion_tokens, total_tokens: totals.total_tokens() }
    }
}

impl From<SeriesRow> for SeriesView {
    fn from(row: SeriesRow) -> Self {
        let SeriesRow { start, model, request_type, plan, user_id, totals } = row;
        Self { start, model, request_type, plan, user_id, totals: totals.into() }
    }
}

/// The series, with a column for each dimension that it is grouped by.
fn series_as_csv(group_by: &[Dimension], series: &[SeriesRow]) -> Result<Response, Problem> {
    let grouped = || DIMENSIONS.iter().filter(|(dimension, _)| group_by.contains(dimension));
    let sums = ["events", "prompt_tokens", "completion_tokens", "total_tokens"];
    let columns = ["start"]
        .into_iter()
        .chain(grouped().map(|(_, name)| *name))
        .chain(sums)
        .map(str::to_owned);
    let rows = series.iter().map(|row| {
        let mut fields = vec![row.start.to_string()];
        fields.extend(grouped().map(|(dimension, _)| {
            let name = match dimension {
                Dimension::Model => row.model.as_ref().map(ToString::to_string),
                Dimension::RequestType => row.request_type.as_ref().map(ToString::to_string),
                Dimension::Plan => row.plan.as_ref().map(ToString::to_string),
                Dimension::User => row.user_id.as_ref().map(ToString::to_string),
            };
            name.unwrap_or_default()
        }));
        let UsageTotals { events, prompt_tokens, completion_tokens } = row.totals;
        let sums = [events, prompt_tokens, completion_tokens, row.totals.total_tokens()];
        fields.extend(sums.map(|sum| sum.to_string()));
        fields
    });
    let lines = csv_body::lines(std::iter::once(columns.collect::<Vec<_>>()).chain(rows))?;
    Ok(csv_body::response(Body::from(lines)))
}
