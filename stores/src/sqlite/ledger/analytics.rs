//! Everybody's usage, from a summary and, after it, the events at the edges of the span.

use std::collections::{BTreeMap, HashMap};

use metering::quota::PlanName;
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, Analytics, AnalyticsQuery, CountedEvent, ModelName, RequestType, SeriesRow,
    UsageTotals, UserTotal,
};
use rusqlite::{Connection, Error, Row, named_params};

use super::events::{self, Wanted};
use super::numbers::Numbers;
use super::row::{count, name_number, request_type, user_number, user_of};
use crate::analytics::{DAY_MILLIS, Grouping, HOUR_MILLIS, Span, plus};

/// See `UsageReports::analytics`. `open` must be in a transaction.
pub(super) fn analytics(open: &Connection, query: &AnalyticsQuery) -> rusqlite::Result<Analytics> {
    let span = Span::of(query);
    let filters = Filters::new(open, query)?;
    let series = sums(open, span, &filters, &Grouping::of(query))?;
    let mut totals = UsageTotals::default();
    for sum in series.values() {
        add(&mut totals, *sum)?;
    }
    let previous = sums(open, span.before(), &filters, &Grouping::default())?;
    let top_users = top_users(open, span, &filters, query.top)?;
    Ok(Analytics {
        totals,
        previous: previous.into_values().next().unwrap_or_default(),
        series: named(open, series)?,
        top_users,
    })
}

/// Numbers to compare rows with; `None` lets all through.
struct Filters {
    request_type: Option<u8>,
    model: Option<i64>,
    plan: Option<i64>,
    user: Option<i64>,
}

impl Filters {
    fn new(open: &Connection, query: &AnalyticsQuery) -> rusqlite::Result<Self> {
        let number = |name: &str| name_number(open, name);
        Ok(Self {
            request_type: query.request_type.map(RequestType::number),
            model: query.model.as_ref().map(|model| number(model.as_str())).transpose()?,
            plan: query.plan.as_ref().map(|plan| number(plan.as_str())).transpose()?,
            user: query.user_id.map(|user| user_number(open, user)).transpose()?,
        })
    }

    fn let_through(&self, request_type: RequestType, model: i64, plan: i64, user: i64) -> bool {
        self.request_type.is_none_or(|wanted| wanted == request_type.number())
            && self.model.is_none_or(|wanted| wanted == model)
            && self.plan.is_none_or(|wanted| wanted == plan)
            && self.user.is_none_or(|wanted| wanted == user)
    }
}

/// Start, model, request type, plan, user: the order of the answer, but for names as numbers.
type Key = (Timestamp, Option<i64>, Option<RequestType>, Option<i64>, Option<i64>);
type Sums = BTreeMap<Key, UsageTotals>;

fn sums(open: &Connection, span: Span, filters: &Filters, by: &Grouping) -> rusqlite::Result<Sums> {
    let of_users = by.user || filters.user.is_some();
    let (unit, select) = match filters.user {
        Some(_) => (DAY_MILLIS, include_str!("sql/analytics_daily_of_user.sql")),
        None if of_users => (DAY_MILLIS, include_str!("sql/analytics_daily.sql")),
        None => (HOUR_MILLIS, include_str!("sql/analytics_hourly.sql")),
    };
    let (whole, edges) = span.cut(unit);
    let mut sums = Sums::new();
    add_rows(open, (select, unit), whole, (filters, by), &mut sums)?;
    for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
        add_events(open, edge, (filters, by), &mut sums)?;
    }
    Ok(sums)
}

/// Adds what `select` answers over `span`, whose bounds count units of `unit` milliseconds.
fn add_rows(
    open: &Connection,
    (select, unit): (&str, i64),
    span: Span,
    (filters, by): (&Filters, &Grouping),
    sums: &mut Sums,
) -> rusqlite::Result<()> {
    let width = (by.width().unwrap_or(i64::MAX) / unit).max(1);
    let mut select = open.prepare_cached(select)?;
    let mut rows = select.query(named_params! {
        ":first": span.from, ":end": span.to, ":width": width,
        ":by_type": by.request_type, ":by_model": by.model,
        ":by_plan": by.plan, ":by_user": by.user,
        ":type": filters.request_type, ":model": filters.model,
        ":plan": filters.plan, ":user": filters.user,
    })?;
    while let Some(row) = rows.next()? {
        let bucket: i64 = row.get(0)?;
        let start = by.bucket(bucket.saturating_mul(width).saturating_mul(unit));
        let by_type = row.get::<_, Option<i64>>(1)?.map(|_| request_type(row, 1)).transpose()?;
        let key = (start, row.get(2)?, by_type, row.get(3)?, row.get(4)?);
        add(sums.entry(key).or_default(), read_totals(row)?)?;
    }
    Ok(())
}

/// Adds the events that occurred in `edge`.
fn add_events(
    open: &Connection,
    edge: Span,
    (filters, by): (&Filters, &Grouping),
    sums: &mut Sums,
) -> rusqlite::Result<()> {
    let mut numbers = Numbers::default();
    let mut count = |counted: CountedEvent| -> rusqlite::Result<()> {
        let AdmittedEvent { event, plan, .. } = &*counted.admitted;
        let user = numbers.user(open, event.user_id)?;
        let model = numbers.name(open, event.model.as_str())?;
        let plan = numbers.name(open, plan.as_str())?;
        if !filters.let_through(event.request_type, model, plan, user) {
            return Ok(());
        }
        let key = (
            by.bucket(event.occurred_at.as_millis()),
            by.model.then_some(model),
            by.request_type.then_some(event.request_type),
            by.plan.then_some(plan),
            by.user.then_some(user),
        );
        let (prompt, completion) = (event.tokens.prompt.into(), event.tokens.completion.into());
        let one = UsageTotals { events: 1, prompt_tokens: prompt, completion_tokens: completion };
        add(sums.entry(key).or_default(), one)
    };
    match filters.user {
        None => events::occurred_in(open, [edge.from, edge.to], count),
        Some(user) => {
            let (before, from) = ((edge.to, 0), edge.from);
            let Filters { request_type, model, .. } = *filters;
            let wanted = Wanted { user, before, from, model, request_type };
            events::history(open, wanted)?.try_for_each(|event| count(event?))
        }
    }
}

fn read_totals(row: &Row<'_>) -> rusqlite::Result<UsageTotals> {
    Ok(UsageTotals {
        events: count(row, 5)?,
        prompt_tokens: count(row, 6)?,
        completion_tokens: count(row, 7)?,
    })
}

fn add(into: &mut UsageTotals, more: UsageTotals) -> rusqlite::Result<()> {
    *into = plus(*into, more).ok_or(Error::IntegralValueOutOfRange(0, i64::MAX))?;
    Ok(())
}

/// Ties go to the user who was counted first.
fn top_users(
    open: &Connection,
    span: Span,
    filters: &Filters,
    top: usize,
) -> rusqlite::Result<Vec<UserTotal>> {
    if top == 0 {
        return Ok(Vec::new());
    }
    let by_user = Grouping { user: true, ..Grouping::default() };
    let mut users: Vec<_> = sums(open, span, filters, &by_user)?
        .into_iter()
        .filter_map(|((_, _, _, _, user), sum)| Some((sum.total_tokens(), user?)))
        .collect();
    users.sort_unstable_by_key(|(tokens, user)| (std::cmp::Reverse(*tokens), *user));
    users.truncate(top);
    let named = users
        .into_iter()
        .map(|(total_tokens, user)| Ok(UserTotal { user_id: user_of(open, user)?, total_tokens }));
    named.collect()
}

/// The rows with names instead of numbers, in the order of the answer.
fn named(open: &Connection, sums: Sums) -> rusqlite::Result<Vec<SeriesRow>> {
    let mut names: HashMap<i64, Box<str>> = HashMap::new();
    let mut name = |number: i64| -> rusqlite::Result<Box<str>> {
        if let Some(name) = names.get(&number) {
            return Ok(name.clone());
        }
        let found: Box<str> = open
            .prepare_cached("SELECT name FROM names WHERE number = ?")?
            .query_row([number], |row| row.get(0))?;
        names.insert(number, found.clone());
        Ok(found)
    };
    let mut rows = Vec::with_capacity(sums.len());
    for ((start, model, request_type, plan, user), totals) in sums {
        rows.push(SeriesRow {
            start,
            model: model.map(&mut name).transpose()?.map(|name| ModelName::new(&name)),
            request_type,
            plan: plan.map(&mut name).transpose()?.map(|name| PlanName::new(&name)),
            user_id: user.map(|user| user_of(open, user)).transpose()?,
            totals,
        });
    }
    rows.sort_by(|a, b| {
        let key = |row: &SeriesRow| {
            (row.start, row.model.clone(), row.request_type, row.plan.clone(), row.user_id)
        };
        key(a).cmp(&key(b))
    });
    Ok(rows)
}
