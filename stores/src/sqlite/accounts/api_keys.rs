use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{ApiKey, ApiKeyId, ApiKeys, ChangeKind, Scopes};
use metering::time::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::changes::announce;
use super::{SqliteAccounts, instant, maybe_instant};

#[async_trait]
impl ApiKeys for SqliteAccounts {
    async fn create(&self, key: ApiKey) -> Result<(), Unavailable> {
        self.write(move |transaction| {
            transaction.execute(
                "INSERT INTO api_keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    key.id.0,
                    key.name,
                    key.scopes.bits(),
                    key.digest,
                    key.created_at.as_millis(),
                    key.expires_at.map(Timestamp::as_millis),
                    key.revoked_at.map(Timestamp::as_millis),
                ],
            )?;
            Ok(())
        })
        .await
    }

    async fn find(&self, id: &ApiKeyId) -> Result<Option<ApiKey>, Unavailable> {
        let id = id.0.clone();
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM api_keys WHERE id = ?1")?;
            statement.query_row([id], api_key).optional()
        })
        .await
    }

    async fn list(&self) -> Result<Vec<ApiKey>, Unavailable> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM api_keys ORDER BY created_at, id")?;
            statement.query_map([], api_key)?.collect()
        })
        .await
    }

    async fn revoke(&self, id: &ApiKeyId, now: Timestamp) -> Result<bool, Unavailable> {
        let id = id.clone();
        self.write(move |transaction| {
            let revoked = transaction.execute(
                "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
                params![id.0, now.as_millis()],
            )?;
            if revoked > 0 {
                announce(transaction, &ChangeKind::ApiKey(id), now)?;
            }
            Ok(revoked > 0)
        })
        .await
    }
}

fn api_key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: ApiKeyId(row.get("id")?),
        name: row.get("name")?,
        scopes: Scopes::from_bits(row.get("scopes")?),
        digest: row.get("digest")?,
        created_at: instant(row, "created_at")?,
        expires_at: maybe_instant(row, "expires_at")?,
        revoked_at: maybe_instant(row, "revoked_at")?,
    })
}
