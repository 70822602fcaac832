use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{PreferenceStore, Preferences, PreferencesChange, UserId};
use metering::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};

use super::super::values::{Id, Instant, instant, user_id, word};
use super::{PostgresAccounts, lock_user};

#[async_trait]
impl PreferenceStore for PostgresAccounts {
    async fn of_user(
        &self,
        user: UserId,
        now: Timestamp,
    ) -> Result<Option<Preferences>, Unavailable> {
        self.within(async {
            if let Some(found) = find(self.pool(), user).await? {
                return Ok(Some(found));
            }
            let mut transaction = self.pool().begin().await?;
            let made = find_or_make(&mut transaction, user, now).await?;
            transaction.commit().await?;
            Ok(made)
        })
        .await
    }

    async fn change(
        &self,
        user: UserId,
        change: &PreferencesChange,
        now: Timestamp,
    ) -> Result<Option<Preferences>, Unavailable> {
        self.within(async {
            let mut transaction = self.pool().begin().await?;
            let Some(before) = find_or_make(&mut transaction, user, now).await? else {
                return Ok(None);
            };
            let after = before.changed(change, now);
            if let Some(after) = &after {
                update(&mut transaction, after).await?;
            }
            transaction.commit().await?;
            Ok(Some(after.unwrap_or(before)))
        })
        .await
    }
}

async fn find_or_make(
    transaction: &mut PgConnection,
    user: UserId,
    now: Timestamp,
) -> Result<Option<Preferences>, sqlx::Error> {
    if !lock_user(transaction, user).await? {
        return Ok(None);
    }
    // Another call may have made them before this one had its turn.
    if let Some(found) = find(&mut *transaction, user).await? {
        return Ok(Some(found));
    }
    let made = Preferences::defaults(user, now);
    sqlx::query(include_str!("sql/insert_preferences.sql"))
        .bind(Id(user))
        .bind(made.id.as_str())
        .bind(made.theme.as_str())
        .bind(made.notifications)
        .bind(made.default_model.as_str())
        .bind(Instant(now))
        .execute(transaction)
        .await?;
    Ok(Some(made))
}

async fn update(transaction: &mut PgConnection, after: &Preferences) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/update_preferences.sql"))
        .bind(Id(after.user_id))
        .bind(after.theme.as_str())
        .bind(after.notifications)
        .bind(after.default_model.as_str())
        .bind(Instant(after.updated_at))
        .execute(transaction)
        .await?;
    Ok(())
}

async fn find(
    executor: impl PgExecutor<'_>,
    user: UserId,
) -> Result<Option<Preferences>, sqlx::Error> {
    let sql = "SELECT id, user_id, theme::text AS theme, notifications, default_model, \
               created_at, updated_at FROM preferences WHERE user_id = $1";
    sqlx::query(sql).bind(Id(user)).try_map(preferences).fetch_optional(executor).await
}

fn preferences(row: PgRow) -> Result<Preferences, sqlx::Error> {
    Ok(Preferences {
        id: row.try_get("id")?,
        user_id: user_id(&row, "user_id")?,
        theme: word(&row, "theme")?,
        notifications: row.try_get("notifications")?,
        default_model: row.try_get("default_model")?,
        created_at: instant(&row, "created_at")?,
        updated_at: instant(&row, "updated_at")?,
    })
}
