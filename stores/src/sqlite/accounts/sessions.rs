use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{Rotation, Sessions, UserId};
use metering::time::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{SqliteAccounts, maybe_instant, user_id};

struct Token {
    family: [u8; 32],
    user: UserId,
    used_at: Option<Timestamp>,
}

#[async_trait]
impl Sessions for SqliteAccounts {
    async fn begin(
        &self,
        user: UserId,
        digest: [u8; 32],
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        self.write(move |transaction| {
            let expired = "DELETE FROM refresh_tokens WHERE expires_at <= ?1";
            transaction.execute(expired, [now.as_millis()])?;
            // Whoever was locked or erased since the password was looked at gets a token that is
            // never valid.
            transaction.execute(
                "INSERT INTO refresh_tokens SELECT ?1, ?1, id, ?3, NULL FROM users \
                 WHERE id = ?2 AND NOT locked",
                params![digest, user.as_bytes(), expires_at.as_millis()],
            )?;
            Ok(())
        })
        .await
    }

    async fn rotate(
        &self,
        digest: [u8; 32],
        successor: [u8; 32],
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rotation, Unavailable> {
        self.write(move |transaction| {
            let Some(token) = find(transaction, digest, now)? else { return Ok(Rotation::Invalid) };
            if token.used_at.is_some() {
                end_family(transaction, token.family)?;
                return Ok(Rotation::Reused);
            }
            transaction.execute(
                "UPDATE refresh_tokens SET used_at = ?2 WHERE digest = ?1",
                params![digest, now.as_millis()],
            )?;
            transaction.execute(
                "INSERT INTO refresh_tokens VALUES (?1, ?2, ?3, ?4, NULL)",
                params![successor, token.family, token.user.as_bytes(), expires_at.as_millis()],
            )?;
            Ok(Rotation::Rotated(token.user))
        })
        .await
    }

    async fn end(&self, digest: [u8; 32], now: Timestamp) -> Result<(), Unavailable> {
        self.write(move |transaction| {
            find(transaction, digest, now)?
                .map_or(Ok(()), |token| end_family(transaction, token.family))
        })
        .await
    }
}

fn find(
    transaction: &Transaction<'_>,
    digest: [u8; 32],
    now: Timestamp,
) -> rusqlite::Result<Option<Token>> {
    let sql = "SELECT family, user_id, used_at FROM refresh_tokens \
               WHERE digest = ?1 AND expires_at > ?2";
    let found = transaction.query_row(sql, params![digest, now.as_millis()], |row| {
        Ok(Token {
            family: row.get("family")?,
            user: user_id(row, "user_id")?,
            used_at: maybe_instant(row, "used_at")?,
        })
    });
    found.optional()
}

fn end_family(transaction: &Transaction<'_>, family: [u8; 32]) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM refresh_tokens WHERE family = ?1", [family])?;
    Ok(())
}
