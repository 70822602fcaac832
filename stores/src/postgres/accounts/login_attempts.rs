use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{AddressKey, LoginAttempts, WRONG_PASSWORDS_KEPT_FOR};
use metering::time::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::super::values::{Instant, maybe_instant};
use super::PostgresAccounts;

#[async_trait]
impl LoginAttempts for PostgresAccounts {
    async fn count(
        &self,
        key: &AddressKey,
        since: Timestamp,
    ) -> Result<(u32, Option<Timestamp>), Unavailable> {
        let sql = "SELECT count(*) AS wrong, min(at) AS oldest FROM login_attempts \
                   WHERE subject = $1 AND at >= $2";
        let counted = |row: PgRow| {
            let wrong = u32::try_from(row.try_get::<i64, _>("wrong")?).unwrap_or(u32::MAX);
            Ok((wrong, maybe_instant(&row, "oldest")?))
        };
        let count = sqlx::query(sql).bind(key.subject()).bind(Instant(since)).try_map(counted);
        self.within(count.fetch_one(self.pool())).await
    }

    async fn note(&self, key: &AddressKey, now: Timestamp) -> Result<(), Unavailable> {
        self.within(async {
            let forget = sqlx::query(include_str!("sql/forget_attempts.sql"));
            forget.bind(Instant(now.minus(WRONG_PASSWORDS_KEPT_FOR))).execute(self.pool()).await?;
            let note = sqlx::query("INSERT INTO login_attempts (subject, at) VALUES ($1, $2)");
            note.bind(key.subject()).bind(Instant(now)).execute(self.pool()).await?;
            Ok(())
        })
        .await
    }
}
