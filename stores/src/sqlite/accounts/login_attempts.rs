use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{AddressKey, LoginAttempts};
use metering::time::Timestamp;
use rusqlite::params;

use super::SqliteAccounts;

/// Longer than any span that throttling asks about. Shorter would let attempts be forgotten.
const KEPT_FOR: Duration = Duration::from_secs(86_400);

#[async_trait]
impl LoginAttempts for SqliteAccounts {
    async fn count(
        &self,
        key: &AddressKey,
        since: Timestamp,
    ) -> Result<(u32, Option<Timestamp>), Unavailable> {
        let subject = subject(key);
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
        let subject = subject(key);
        self.write(move |transaction| {
            let old = now.minus(KEPT_FOR).as_millis();
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

fn subject(key: &AddressKey) -> String {
    match key {
        AddressKey::Account(email) => format!("account:{email}"),
        AddressKey::Client(address) => format!("client:{address}"),
    }
}
