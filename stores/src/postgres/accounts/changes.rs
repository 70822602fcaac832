use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{ApiKeyId, Change, ChangeFeed, ChangeKind, UserId};
use metering::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::super::values::{Instant, damaged};
use super::PostgresAccounts;

#[async_trait]
impl ChangeFeed for PostgresAccounts {
    async fn latest(&self) -> Result<u64, Unavailable> {
        let sql = "SELECT coalesce(max(number), 0) FROM changes";
        let latest = sqlx::query_scalar(sql).fetch_one(self.pool());
        self.within(latest).await.map(number)
    }

    async fn after(&self, after: u64) -> Result<Vec<Change>, Unavailable> {
        let sql = "SELECT number, kind, subject FROM changes WHERE number > $1 ORDER BY number";
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.within(sqlx::query(sql).bind(after).try_map(change).fetch_all(self.pool())).await
    }

    /// Half of the second within which a lock or a revocation must be in force everywhere.
    fn poll_interval(&self) -> Duration {
        Duration::from_millis(500)
    }
}

/// Puts a change on the feed, as the last statement of the transaction that makes it: all others
/// that announce something wait until it ends.
pub(super) async fn announce(
    transaction: &mut PgConnection,
    kind: &ChangeKind,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let (word, subject) = match kind {
        ChangeKind::User(id) => ("user", id.to_string()),
        ChangeKind::Terms(id) => ("terms", id.to_string()),
        ChangeKind::ApiKey(id) => ("api_key", id.0.clone()),
    };
    let sql = include_str!("sql/announce.sql");
    sqlx::query(sql).bind(word).bind(subject).bind(Instant(now)).execute(transaction).await?;
    Ok(())
}

fn change(row: PgRow) -> Result<Change, sqlx::Error> {
    let (kind, subject): (String, String) = (row.try_get("kind")?, row.try_get("subject")?);
    let user = |subject: String| {
        subject.parse::<UserId>().map_err(|_| damaged(format!("subject holds {subject:?}")))
    };
    let kind = match kind.as_str() {
        "user" => ChangeKind::User(user(subject)?),
        "terms" => ChangeKind::Terms(user(subject)?),
        "api_key" => ChangeKind::ApiKey(ApiKeyId(subject)),
        _ => return Err(damaged(format!("kind holds {kind:?}"))),
    };
    Ok(Change { number: number(row.try_get("number")?), kind })
}

fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}
