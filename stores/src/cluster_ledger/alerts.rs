//! Alerts, and the outbox from which they are sent, in Postgres.

use std::collections::HashMap;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::{Period, Timestamp};
use metering::usage::{
    Alert, AlertBacklog, AlertId, AlertQuery, Alerts, Attempt, Delivery, DeliveryState, ListedAlert,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::ClusterLedger;
use super::stored::{Id, STORE, count, stored, word};

/// Rows of one statement.
const ROWS_MAX: usize = 10_000;

/// Keeps alerts, each once; answers how many of each user and month are new.
pub(super) async fn raise(
    open: &mut PgConnection,
    alerts: &[Alert],
) -> Result<HashMap<(UserId, Period), u64>, sqlx::Error> {
    let mut new = HashMap::new();
    for rows in alerts.chunks(ROWS_MAX) {
        let numbers = |of: fn(&Alert) -> u64| {
            let stored =
                |alert| stored(of(alert)).map_err(|error| sqlx::Error::Encode(error.into()));
            rows.iter().map(stored).collect::<Result<Vec<_>, _>>()
        };
        let texts = |of: fn(&Alert) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        let raised = sqlx::query(include_str!("sql/insert_alerts.sql"))
            .bind(rows.iter().map(|alert| key(alert.id())).collect::<Vec<_>>())
            .bind(rows.iter().map(|alert| Id(alert.user_id)).collect::<Vec<_>>())
            .bind(rows.iter().map(|alert| alert.period.number()).collect::<Vec<_>>())
            .bind(texts(|alert| alert.plan.as_str()))
            .bind(texts(|alert| alert.meter.as_str()))
            .bind(rows.iter().map(|alert| i32::from(alert.percent)).collect::<Vec<_>>())
            .bind(numbers(|alert| alert.limit)?)
            .bind(numbers(|alert| alert.used)?)
            .bind(rows.iter().map(|alert| alert.raised_at.as_millis()).collect::<Vec<_>>())
            .fetch_all(&mut *open)
            .await?;
        for row in raised {
            let Id(user) = row.try_get("user_id")?;
            *new.entry((user, Period::from_number(row.try_get("period")?))).or_default() += 1;
        }
    }
    Ok(new)
}

/// An alert's id in a column of type uuid.
const fn key(id: AlertId) -> Id {
    Id(UserId::from_bytes(*id.as_bytes()))
}

fn alert(row: &PgRow) -> Result<Alert, sqlx::Error> {
    let Id(user_id) = row.try_get("user_id")?;
    let percent: i32 = row.try_get("percent")?;
    Ok(Alert {
        user_id,
        period: Period::from_number(row.try_get("period")?),
        plan: PlanName::new(row.try_get("plan")?),
        meter: word(row, "meter")?,
        percent: u16::try_from(percent).map_err(|error| sqlx::Error::Decode(error.into()))?,
        limit: count(row, "plan_limit")?,
        used: count(row, "used")?,
        raised_at: Timestamp::from_millis(row.try_get("raised_at")?),
    })
}

fn attempts(row: &PgRow) -> Result<u32, sqlx::Error> {
    row.try_get::<i32, _>("attempts").map(|attempts| u32::try_from(attempts).unwrap_or_default())
}

fn listed(row: &PgRow) -> Result<ListedAlert, sqlx::Error> {
    let ended_at: Option<i64> = row.try_get("ended_at")?;
    let delivery = Delivery {
        state: word(row, "state")?,
        attempts: attempts(row)?,
        ended_at: ended_at.map(Timestamp::from_millis),
        last_error: row.try_get("last_error")?,
    };
    Ok(ListedAlert { alert: alert(row)?, delivery })
}

#[async_trait]
impl Alerts for ClusterLedger {
    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<ListedAlert>, Unavailable> {
        let (time, id) = match query.after {
            Some((time, id)) => (time.as_millis(), id),
            None => (i64::MAX, AlertId::from_bytes([0; 16])),
        };
        let sql = match query.user_id {
            Some(_) => include_str!("sql/alerts_of_user.sql"),
            None => include_str!("sql/alerts.sql"),
        };
        let mut select = sqlx::query(sql)
            .bind(time)
            .bind(key(id))
            .bind(query.state.map(DeliveryState::as_str))
            .bind(i64::try_from(query.rows_max).unwrap_or(i64::MAX));
        if let Some(user) = query.user_id {
            select = select.bind(Id(user));
        }
        let listing = async {
            let rows = select.fetch_all(self.shared.postgres.pool()).await?;
            rows.iter().map(listed).collect()
        };
        self.shared.postgres.within(STORE, listing).await
    }

    async fn take_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        alerts_max: usize,
    ) -> Result<Vec<(Alert, u32)>, Unavailable> {
        let take = sqlx::query(include_str!("sql/take_due_alerts.sql"))
            .bind(now.as_millis())
            .bind(until.as_millis())
            .bind(i64::try_from(alerts_max).unwrap_or(i64::MAX));
        let taking = async {
            let rows = take.fetch_all(self.shared.postgres.pool()).await?;
            rows.iter().map(|row| Ok((alert(row)?, attempts(row)?))).collect()
        };
        self.shared.postgres.within(STORE, taking).await
    }

    async fn note(&self, id: AlertId, attempt: &Attempt) -> Result<(), Unavailable> {
        let note = sqlx::query(include_str!("sql/note_attempt.sql")).bind(key(id));
        let note = match attempt {
            Attempt::Ended(state, at, error) => note
                .bind(state.as_str())
                .bind(Some(at.as_millis()))
                .bind(error.as_deref())
                .bind(None::<i64>),
            Attempt::Again(error, due_at) => note
                .bind(DeliveryState::Waiting.as_str())
                .bind(None::<i64>)
                .bind(Some(error.as_str()))
                .bind(Some(due_at.as_millis())),
        };
        let noting = async { note.execute(self.shared.postgres.pool()).await.map(drop) };
        self.shared.postgres.within(STORE, noting).await
    }

    async fn retry(&self, now: Timestamp) -> Result<u64, Unavailable> {
        let retry = sqlx::query(include_str!("sql/retry_alerts.sql")).bind(now.as_millis());
        let retrying = async {
            let retried = retry.execute(self.shared.postgres.pool()).await?;
            Ok(retried.rows_affected())
        };
        self.shared.postgres.within(STORE, retrying).await
    }

    async fn backlog(&self) -> Result<AlertBacklog, Unavailable> {
        let sql = "SELECT count(*) AS waiting, min(raised_at) AS oldest FROM alerts \
                   WHERE state = 'waiting'";
        let asking = async {
            let row = sqlx::query(sql).fetch_one(self.shared.postgres.pool()).await?;
            let oldest: Option<i64> = row.try_get("oldest")?;
            let oldest = oldest.map(Timestamp::from_millis);
            Ok(AlertBacklog { waiting: count(&row, "waiting")?, oldest })
        };
        self.shared.postgres.within(STORE, asking).await
    }
}
