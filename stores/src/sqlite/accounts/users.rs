use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{
    Accounts, ChangeKind, CreateError, Email, NewUser, PasswordHash, Role, User, UserId, UserPage,
    UserQuery, uuid_at,
};
use metering::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::changes::announce;
use super::{SqliteAccounts, damaged, instant, user_id, word};

const COLUMNS: &str = "id, name, email, external_id, role, locked, created_at, updated_at";

/// Why a user was not made, as the transaction answers it: nothing was written then.
enum Taken {
    Email,
    ExternalId(Box<User>),
}

#[async_trait]
impl Accounts for SqliteAccounts {
    async fn create(&self, user: NewUser) -> Result<User, CreateError> {
        match self.write(move |transaction| create(transaction, user)).await? {
            Ok(user) => Ok(user),
            Err(Taken::Email) => Err(CreateError::EmailTaken),
            Err(Taken::ExternalId(user)) => Err(CreateError::ExternalIdTaken(user)),
        }
    }

    async fn find(&self, id: UserId) -> Result<Option<User>, Unavailable> {
        self.read(move |connection| find(connection, id)).await
    }

    async fn find_login(
        &self,
        email: &Email,
    ) -> Result<Option<(User, Option<PasswordHash>)>, Unavailable> {
        let key = email.key();
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS}, password FROM users WHERE email_key = ?1");
            let mut statement = connection.prepare_cached(&sql)?;
            let found = statement.query_row([key], |row| {
                Ok((user(row)?, row.get::<_, Option<String>>("password")?.map(PasswordHash)))
            });
            found.optional()
        })
        .await
    }

    async fn find_external(
        &self,
        external_ids: &[String],
    ) -> Result<Vec<Option<UserId>>, Unavailable> {
        let external_ids = external_ids.to_vec();
        self.read(move |connection| {
            let sql = "SELECT id FROM users WHERE external_id = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let find = |id: &String| statement.query_row([id], |row| user_id(row, "id")).optional();
            external_ids.iter().map(find).collect()
        })
        .await
    }

    async fn list(&self, query: &UserQuery) -> Result<UserPage, Unavailable> {
        let query = query.clone();
        self.read(move |connection| list(connection, &query)).await
    }

    async fn update(
        &self,
        id: UserId,
        role: Option<Role>,
        locked: Option<bool>,
        now: Timestamp,
    ) -> Result<Option<User>, Unavailable> {
        self.write(move |transaction| {
            let Some(before) = find(transaction, id)? else { return Ok(None) };
            let Some(after) = before.changed(role, locked, now) else { return Ok(Some(before)) };
            transaction.execute(
                "UPDATE users SET role = ?2, locked = ?3, updated_at = ?4 WHERE id = ?1",
                params![id.as_bytes(), after.role.as_str(), after.locked, now.as_millis()],
            )?;
            if after.locked {
                end_sessions(transaction, id)?;
            }
            announce(transaction, &ChangeKind::User(id), now)?;
            Ok(Some(after))
        })
        .await
    }

    async fn erase(&self, id: UserId, now: Timestamp) -> Result<bool, Unavailable> {
        self.write(move |transaction| {
            if find(transaction, id)?.is_none() {
                return Ok(false);
            }
            transaction
                .execute(include_str!("erase_user.sql"), params![id.as_bytes(), now.as_millis()])?;
            let payment = "UPDATE subscriptions SET stripe_customer_id = NULL, \
                           stripe_subscription_id = NULL, payment_method_id = NULL \
                           WHERE user_id = ?1";
            transaction.execute(payment, [id.as_bytes()])?;
            transaction.execute("DELETE FROM preferences WHERE user_id = ?1", [id.as_bytes()])?;
            end_sessions(transaction, id)?;
            announce(transaction, &ChangeKind::User(id), now)?;
            Ok(true)
        })
        .await
    }
}

fn create(transaction: &Transaction<'_>, new: NewUser) -> rusqlite::Result<Result<User, Taken>> {
    // The external id goes first: a service that repeats its request gets the user it made.
    if let Some(external_id) = &new.external_id {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE external_id = ?1");
        if let Some(found) = transaction.query_row(&sql, [external_id], user).optional()? {
            return Ok(Err(Taken::ExternalId(Box::new(found))));
        }
    }
    let email_key = new.email.as_ref().map(Email::key);
    if let Some(key) = &email_key {
        let sql = "SELECT 1 FROM users WHERE email_key = ?1";
        if transaction.query_row(sql, [key], |_| Ok(())).optional()?.is_some() {
            return Ok(Err(Taken::Email));
        }
    }
    transaction.execute(
        include_str!("insert_user.sql"),
        params![
            new.id.as_bytes(),
            new.name,
            new.email.as_ref().map(Email::as_str),
            email_key,
            new.external_id,
            new.role.as_str(),
            new.password.as_ref().map(|hash| hash.0.as_str()),
            new.search_text(),
            new.now.as_millis(),
        ],
    )?;
    transaction.execute(
        include_str!("insert_subscription.sql"),
        params![
            new.id.as_bytes(),
            format!("sub_{}", uuid_at(new.now)),
            new.plan.as_str(),
            new.now.as_millis(),
            new.payment_method_id,
        ],
    )?;
    announce(transaction, &ChangeKind::Terms(new.id), new.now)?;
    Ok(Ok(new.into_user()))
}

/// The user of that id, unless erased.
pub(super) fn find(connection: &Connection, id: UserId) -> rusqlite::Result<Option<User>> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE id = ?1 AND erased_at IS NULL");
    connection.prepare_cached(&sql)?.query_row([id.as_bytes()], user).optional()
}

fn list(connection: &Connection, query: &UserQuery) -> rusqlite::Result<UserPage> {
    let rows_max = query.rows_max;
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX).saturating_add(1);
    let search = query.search.as_ref().map(|text| text.to_lowercase());
    let after = query.after.map_or([0; 16], |id| *id.as_bytes());
    let sql = format!(
        "SELECT {COLUMNS} FROM users WHERE id > ?1 AND erased_at IS NULL \
         AND (?2 IS NULL OR instr(search_text, ?2) > 0) ORDER BY id LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![after, search, limit], user)?;
    let mut users = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let has_more = users.len() > rows_max;
    users.truncate(rows_max);
    Ok(UserPage { users, has_more })
}

fn end_sessions(transaction: &Transaction<'_>, id: UserId) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM refresh_tokens WHERE user_id = ?1", [id.as_bytes()])?;
    Ok(())
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let email: Option<String> = row.get("email")?;
    let email = email.map(|text| Email::new(&text)).transpose();
    Ok(User {
        id: user_id(row, "id")?,
        name: row.get("name")?,
        email: email.map_err(|_| damaged("email holds no address".into()))?,
        external_id: row.get("external_id")?,
        role: word(row, "role")?,
        locked: row.get("locked")?,
        created_at: instant(row, "created_at")?,
        updated_at: instant(row, "updated_at")?,
    })
}
