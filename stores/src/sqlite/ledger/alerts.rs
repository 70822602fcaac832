//! Alerts, and the outbox from which they are sent.

use metering::quota::{PlanName, UserTotals};
use metering::time::{Period, Timestamp};
use metering::usage::{
    Alert, AlertBacklog, AlertId, AlertQuery, Attempt, Delivery, DeliveryState, ListedAlert,
    Watched,
};
use rusqlite::{Connection, Row, params};

use super::row::{count, stored, user_id, word};

/// Keeps the alerts that these totals raise, each once; answers how many are new.
pub(super) fn raise(
    open: &Connection,
    watched: &[Watched],
    totals: &[UserTotals],
    raised_at: Timestamp,
) -> rusqlite::Result<u64> {
    if watched.is_empty() {
        return Ok(0);
    }
    let mut insert = open.prepare_cached(include_str!("sql/insert_alert.sql"))?;
    let mut new = 0;
    for one in watched {
        let month = |at: &UserTotals| (at.user_id, at.period).cmp(&(one.user_id, one.period));
        // In the order of the flush's statistics.
        let Ok(place) = totals.binary_search_by(month) else { continue };
        for alert in one.reached(totals[place].totals, raised_at) {
            new += insert.execute(params![
                alert.id().as_bytes(),
                alert.user_id.as_bytes(),
                alert.period.number(),
                alert.plan.as_str(),
                alert.meter.as_str(),
                alert.percent,
                stored(alert.limit)?,
                stored(alert.used)?,
                raised_at.as_millis(),
            ])?;
        }
    }
    Ok(u64::try_from(new).unwrap_or(u64::MAX))
}

/// See `Alerts::alerts`.
pub(super) fn list(open: &Connection, query: AlertQuery) -> rusqlite::Result<Vec<ListedAlert>> {
    let state = query.state.map(DeliveryState::as_str);
    let (time, id) = match query.after {
        Some((time, id)) => (time.as_millis(), *id.as_bytes()),
        None => (i64::MAX, [0; 16]),
    };
    let rows = i64::try_from(query.rows_max).unwrap_or(i64::MAX);
    let listed = |row: &Row<'_>| {
        let ended_at: Option<i64> = row.get(10)?;
        let delivery = Delivery {
            attempts: row.get(8)?,
            state: word(row, 9)?,
            ended_at: ended_at.map(Timestamp::from_millis),
            last_error: row.get(11)?,
        };
        Ok(ListedAlert { alert: alert(row)?, delivery })
    };
    match query.user_id {
        Some(user) => open
            .prepare_cached(include_str!("sql/alerts_of_user.sql"))?
            .query_map(params![time, id, state, rows, user.as_bytes()], listed)?
            .collect(),
        None => open
            .prepare_cached(include_str!("sql/alerts.sql"))?
            .query_map(params![time, id, state, rows], listed)?
            .collect(),
    }
}

/// The first eight columns.
fn alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    let plan: String = row.get(2)?;
    Ok(Alert {
        user_id: user_id(row, 0)?,
        period: Period::from_number(row.get(1)?),
        plan: PlanName::new(&plan),
        meter: word(row, 3)?,
        percent: row.get(4)?,
        limit: count(row, 5)?,
        used: count(row, 6)?,
        raised_at: Timestamp::from_millis(row.get(7)?),
    })
}

/// See `Alerts::take_due`.
pub(super) fn take_due(
    open: &Connection,
    now: Timestamp,
    until: Timestamp,
    alerts_max: usize,
) -> rusqlite::Result<Vec<(Alert, u32)>> {
    let alerts_max = i64::try_from(alerts_max).unwrap_or(i64::MAX);
    open.prepare_cached(include_str!("sql/take_due_alerts.sql"))?
        .query_map(params![now.as_millis(), until.as_millis(), alerts_max], |row| {
            Ok((alert(row)?, row.get(8)?))
        })?
        .collect()
}

/// See `Alerts::note`.
pub(super) fn note(open: &Connection, id: AlertId, attempt: &Attempt) -> rusqlite::Result<()> {
    let (state, ended_at, error, due_at) = match attempt {
        Attempt::Ended(state, at, error) => (*state, Some(at), error.as_deref(), None),
        Attempt::Again(error, due_at) => {
            (DeliveryState::Waiting, None, Some(error.as_str()), Some(due_at))
        }
    };
    let [ended_at, due_at] = [ended_at, due_at].map(|time| time.map(|time| time.as_millis()));
    open.prepare_cached(include_str!("sql/note_attempt.sql"))?
        .execute(params![id.as_bytes(), state.as_str(), ended_at, error, due_at])
        .map(drop)
}

/// See `Alerts::retry`.
pub(super) fn retry(open: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    let retried = open.execute(include_str!("sql/retry_alerts.sql"), [now.as_millis()])?;
    Ok(u64::try_from(retried).unwrap_or(u64::MAX))
}

/// See `Alerts::backlog`.
pub(super) fn backlog(open: &Connection) -> rusqlite::Result<AlertBacklog> {
    let sql = "SELECT count(*), min(raised_at) FROM alerts WHERE state = 'waiting'";
    open.prepare_cached(sql)?.query_row([], |row| {
        let oldest: Option<i64> = row.get(1)?;
        Ok(AlertBacklog { waiting: count(row, 0)?, oldest: oldest.map(Timestamp::from_millis) })
    })
}
