use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{AddressKey, LoginAttempts, WRONG_PASSWORDS_KEPT_FOR};
use metering::time::Timestamp;
use rusqlite::params;

use super::SqliteAccounts;

#[async_trait]
impl LoginAttempts for SqliteAccounts {
    async fn count(
        &self,
        key: &AddressKey,
        since: Timestamp,
    ) -> Result<(u32, Option<Timestamp>), Unavailable> {
        let subject = key.subject();
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT count(*), min(at) FROM login_attempts WHERE subject = ?1 AND at >= ?2",
            )?;
            statement.query_row(params![subject, since.as_millis()], |row| {
                let oldest: Option<i64> = row.get(1)?;
                Ok((row.get(0)?, oldest.map(Timestamp::from_millis)))
            })
        })
        .await
    }

    async fn note(&self, key: &AddressKey, now: Timestamp) -> Result<(), Unavailable> {
        let subject = key.subject();
        self.write(move |transaction| {
            let old = now.minus(WRONG_PASSWORDS_KEPT_FOR).as_millis();
            transaction.execute("DELETE FROM login_attempts WHERE at < ?1", [old])?;
            transaction.execute(
                "INSERT INTO login_attempts VALUES (?1, ?2)",
                params![subject, now.as_millis()],
            )?;
            Ok(())
        })
        .await
    }
}
