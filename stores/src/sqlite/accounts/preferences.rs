use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{PreferenceStore, Preferences, PreferencesChange, UserId};
use metering::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{SqliteAccounts, instant, user_id, users, word};

#[async_trait]
impl PreferenceStore for SqliteAccounts {
    async fn of_user(
        &self,
        user: UserId,
        now: Timestamp,
    ) -> Result<Option<Preferences>, Unavailable> {
        if let Some(found) = self.read(move |connection| find(connection, user)).await? {
            return Ok(Some(found));
        }
        self.write(move |transaction| find_or_make(transaction, user, now)).await
    }

    async fn change(
        &self,
        user: UserId,
        change: &PreferencesChange,
        now: Timestamp,
    ) -> Result<Option<Preferences>, Unavailable> {
        let change = change.clone();
        self.write(move |transaction| {
            let Some(before) = find_or_make(transaction, user, now)? else { return Ok(None) };
            let Some(after) = before.changed(&change, now) else { return Ok(Some(before)) };
            transaction.execute(
                "UPDATE preferences SET theme = ?2, notifications = ?3, default_model = ?4, \
                 updated_at = ?5 WHERE user_id = ?1",
                params![
                    user.as_bytes(),
                    after.theme.as_str(),
                    after.notifications,
                    after.default_model,
                    now.as_millis()
                ],
            )?;
            Ok(Some(after))
        })
        .await
    }
}

fn find_or_make(
    transaction: &Transaction<'_>,
    user: UserId,
    now: Timestamp,
) -> rusqlite::Result<Option<Preferences>> {
    // Another call may have made them since the reader looked.
    if let Some(found) = find(transaction, user)? {
        return Ok(Some(found));
    }
    if users::find(transaction, user)?.is_none() {
        return Ok(None);
    }
    let made = Preferences::defaults(user, now);
    transaction.execute(
        "INSERT INTO preferences VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        params![
            user.as_bytes(),
            made.id,
            made.theme.as_str(),
            made.notifications,
            made.default_model,
            now.as_millis()
        ],
    )?;
    Ok(Some(made))
}

fn find(connection: &Connection, user: UserId) -> rusqlite::Result<Option<Preferences>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM preferences WHERE user_id = ?1")?;
    statement.query_row([user.as_bytes()], preferences).optional()
}

fn preferences(row: &Row<'_>) -> rusqlite::Result<Preferences> {
    Ok(Preferences {
        id: row.get("id")?,
        user_id: user_id(row, "user_id")?,
        theme: word(row, "theme")?,
        notifications: row.get("notifications")?,
        default_model: row.get("default_model")?,
        created_at: instant(row, "created_at")?,
        updated_at: instant(row, "updated_at")?,
    })
}
