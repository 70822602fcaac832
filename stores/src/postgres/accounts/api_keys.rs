use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{ApiKey, ApiKeyId, ApiKeys, ChangeKind, Scopes};
use metering::time::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::super::values::{Instant, damaged, instant, maybe_instant};
use super::PostgresAccounts;
use super::changes::announce;

#[async_trait]
impl ApiKeys for PostgresAccounts {
    async fn create(&self, key: ApiKey) -> Result<(), Unavailable> {
        let sql = "INSERT INTO api_keys \
                   (id, name, scopes, digest, created_at, expires_at, revoked_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let insert = sqlx::query(sql)
            .bind(key.id.0)
            .bind(key.name)
            .bind(i16::from(key.scopes.bits()))
            .bind(key.digest)
            .bind(Instant(key.created_at))
            .bind(key.expires_at.map(Instant))
            .bind(key.revoked_at.map(Instant));
        self.within(insert.execute(self.pool())).await.map(drop)
    }

    async fn find(&self, id: &ApiKeyId) -> Result<Option<ApiKey>, Unavailable> {
        let found = sqlx::query("SELECT * FROM api_keys WHERE id = $1").bind(id.0.as_str());
        self.within(found.try_map(api_key).fetch_optional(self.pool())).await
    }

    async fn list(&self) -> Result<Vec<ApiKey>, Unavailable> {
        let all = sqlx::query("SELECT * FROM api_keys ORDER BY created_at, id").try_map(api_key);
        self.within(all.fetch_all(self.pool())).await
    }

    async fn revoke(&self, id: &ApiKeyId, now: Timestamp) -> Result<bool, Unavailable> {
        self.within(async {
            let mut transaction = self.pool().begin().await?;
            let sql = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
            let revoke = sqlx::query(sql).bind(id.0.as_str()).bind(Instant(now));
            if revoke.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(false);
            }
            announce(&mut transaction, &ChangeKind::ApiKey(id.clone()), now).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }
}

fn api_key(row: PgRow) -> Result<ApiKey, sqlx::Error> {
    let scopes: i16 = row.try_get("scopes")?;
    let scopes = u8::try_from(scopes).map_err(|_| damaged(format!("scopes holds {scopes}")))?;
    Ok(ApiKey {
        id: ApiKeyId(row.try_get("id")?),
        name: row.try_get("name")?,
        scopes: Scopes::from_bits(scopes),
        digest: row.try_get("digest")?,
        created_at: instant(&row, "created_at")?,
        expires_at: maybe_instant(&row, "expires_at")?,
        revoked_at: maybe_instant(&row, "revoked_at")?,
    })
}
