use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{SigningKey, SigningKeys};
use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row};

use super::super::values::{Instant, instant};
use super::PostgresAccounts;

#[async_trait]
impl SigningKeys for PostgresAccounts {
    async fn load(&self, candidate: SigningKey) -> Result<Vec<SigningKey>, Unavailable> {
        self.within(async {
            let found = all(self.pool()).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            let mut transaction = self.pool().begin().await?;
            // Of two processes that start at once, the second waits here and finds the first's.
            let alone = "LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE";
            sqlx::query(alone).execute(&mut *transaction).await?;
            let found = all(&mut *transaction).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            let sql = "INSERT INTO signing_keys (id, pkcs8, public, created_at) \
                       VALUES ($1, $2, $3, $4)";
            sqlx::query(sql)
                .bind(candidate.id.as_str())
                .bind(candidate.pkcs8.as_slice())
                .bind(candidate.public)
                .bind(Instant(candidate.created_at))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(vec![candidate])
        })
        .await
    }
}

async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<SigningKey>, sqlx::Error> {
    let all = sqlx::query("SELECT * FROM signing_keys ORDER BY created_at DESC, id");
    all.try_map(signing_key).fetch_all(executor).await
}

fn signing_key(row: PgRow) -> Result<SigningKey, sqlx::Error> {
    Ok(SigningKey {
        id: row.try_get("id")?,
        pkcs8: row.try_get("pkcs8")?,
        public: row.try_get("public")?,
        created_at: instant(&row, "created_at")?,
    })
}
