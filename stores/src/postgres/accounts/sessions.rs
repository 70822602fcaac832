use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{Rotation, Sessions, UserId};
use metering::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::super::values::{Id, Instant, maybe_instant, user_id};
use super::{PostgresAccounts, lock_user};

struct Token {
    family: [u8; 32],
    user: UserId,
    used_at: Option<Timestamp>,
}

#[async_trait]
impl Sessions for PostgresAccounts {
    async fn begin(
        &self,
        user: UserId,
        digest: [u8; 32],
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        self.within(async {
            // On its own, so that no lock of it is held while the user's row is waited for.
            let forget = sqlx::query(include_str!("sql/forget_tokens.sql"));
            forget.bind(Instant(now)).execute(self.pool()).await?;
            sqlx::query(include_str!("sql/begin_session.sql"))
                .bind(digest)
                .bind(Id(user))
                .bind(Instant(expires_at))
                .execute(self.pool())
                .await?;
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
        self.within(async {
            let mut transaction = self.pool().begin().await?;
            let Some(token) = find_in_turn(&mut transaction, digest, now).await? else {
                return Ok(Rotation::Invalid);
            };
            let rotation = if token.used_at.is_some() {
                end_family(&mut transaction, token.family).await?;
                Rotation::Reused
            } else {
                let used = sqlx::query("UPDATE refresh_tokens SET used_at = $2 WHERE digest = $1");
                used.bind(digest).bind(Instant(now)).execute(&mut *transaction).await?;
                let insert = "INSERT INTO refresh_tokens (digest, family, user_id, expires_at) \
                              VALUES ($1, $2, $3, $4)";
                sqlx::query(insert)
                    .bind(successor)
                    .bind(token.family)
                    .bind(Id(token.user))
                    .bind(Instant(expires_at))
                    .execute(&mut *transaction)
                    .await?;
                Rotation::Rotated(token.user)
            };
            transaction.commit().await?;
            Ok(rotation)
        })
        .await
    }

    async fn end(&self, digest: [u8; 32], now: Timestamp) -> Result<(), Unavailable> {
        self.within(async {
            let mut transaction = self.pool().begin().await?;
            if let Some(token) = find_in_turn(&mut transaction, digest, now).await? {
                end_family(&mut transaction, token.family).await?;
            }
            transaction.commit().await
        })
        .await
    }
}

/// The token, once nobody else uses one of this user: else a token that is made while its family
/// or its user's sessions are ended would be left.
async fn find_in_turn(
    transaction: &mut PgConnection,
    digest: [u8; 32],
    now: Timestamp,
) -> Result<Option<Token>, sqlx::Error> {
    let Some(seen) = find(transaction, digest, now).await? else { return Ok(None) };
    if !lock_user(transaction, seen.user).await? {
        return Ok(None);
    }
    find(transaction, digest, now).await
}

async fn find(
    transaction: &mut PgConnection,
    digest: [u8; 32],
    now: Timestamp,
) -> Result<Option<Token>, sqlx::Error> {
    let sql = "SELECT family, user_id, used_at FROM refresh_tokens \
               WHERE digest = $1 AND expires_at > $2";
    let token = |row: PgRow| {
        Ok(Token {
            family: row.try_get("family")?,
            user: user_id(&row, "user_id")?,
            used_at: maybe_instant(&row, "used_at")?,
        })
    };
    let found = sqlx::query(sql).bind(digest).bind(Instant(now)).try_map(token);
    found.fetch_optional(transaction).await
}

async fn end_family(transaction: &mut PgConnection, family: [u8; 32]) -> Result<(), sqlx::Error> {
    let end = sqlx::query("DELETE FROM refresh_tokens WHERE family = $1");
    end.bind(family).execute(transaction).await?;
    Ok(())
}
