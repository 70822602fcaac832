use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{
    Accounts, ChangeKind, CreateError, Email, NewUser, PasswordHash, Role, User, UserId, UserPage,
    UserQuery, uuid_at,
};
use metering::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::super::values::{Id, Instant, damaged, instant, user_id, word};
use super::changes::announce;
use super::{PostgresAccounts, lock_user};

/// A statement that answers whole users, by a condition on `$1`.
macro_rules! users_where {
    ($condition:literal) => {
        concat!(
            "SELECT id, name, email, external_id, role::text AS role, locked, created_at, ",
            "updated_at, password_hash FROM users WHERE ",
            $condition
        )
    };
}

/// What a new user asked for and somebody has.
enum Taken {
    Id,
    Email,
    ExternalId(Box<User>),
}

#[async_trait]
impl Accounts for PostgresAccounts {
    async fn create(&self, user: NewUser) -> Result<User, CreateError> {
        match self.within(self.create_or_refuse(user)).await? {
            Ok(user) => Ok(user),
            Err(Taken::Id) => Err(Unavailable::new("accounts", "the user's id is taken").into()),
            Err(Taken::Email) => Err(CreateError::EmailTaken),
            Err(Taken::ExternalId(user)) => Err(CreateError::ExternalIdTaken(user)),
        }
    }

    async fn find(&self, id: UserId) -> Result<Option<User>, Unavailable> {
        let sql = users_where!("id = $1 AND erased_at IS NULL");
        self.within(sqlx::query(sql).bind(Id(id)).try_map(user).fetch_optional(self.pool())).await
    }

    async fn find_login(
        &self,
        email: &Email,
    ) -> Result<Option<(User, Option<PasswordHash>)>, Unavailable> {
        let with_password = |row: PgRow| {
            let password: Option<String> = row.try_get("password_hash")?;
            Ok((user(row)?, password.map(PasswordHash)))
        };
        let found = sqlx::query(users_where!("email_key = $1")).bind(email.key());
        self.within(found.try_map(with_password).fetch_optional(self.pool())).await
    }

    async fn find_external(
        &self,
        external_ids: &[String],
    ) -> Result<Vec<Option<UserId>>, Unavailable> {
        let sql = "SELECT u.id FROM unnest($1::text[]) WITH ORDINALITY AS asked (wanted, place) \
                   LEFT JOIN users u ON u.external_id = wanted ORDER BY place";
        let found = sqlx::query_scalar::<_, Option<Id>>(sql).bind(external_ids);
        let found = self.within(found.fetch_all(self.pool())).await?;
        Ok(found.into_iter().map(|found| found.map(|id| id.0)).collect())
    }

    async fn list(&self, query: &UserQuery) -> Result<UserPage, Unavailable> {
        let limit = i64::try_from(query.rows_max).unwrap_or(i64::MAX).saturating_add(1);
        let found = sqlx::query(include_str!("sql/list_users.sql"))
            .bind(query.after.map(Id))
            .bind(query.search.as_ref().map(|text| text.to_lowercase()))
            .bind(limit)
            .try_map(user);
        let mut users = self.within(found.fetch_all(self.pool())).await?;
        let has_more = users.len() > query.rows_max;
        users.truncate(query.rows_max);
        Ok(UserPage { users, has_more })
    }

    async fn update(
        &self,
        id: UserId,
        role: Option<Role>,
        locked: Option<bool>,
        now: Timestamp,
    ) -> Result<Option<User>, Unavailable> {
        self.within(async {
            let mut transaction = self.pool().begin().await?;
            let sql = users_where!("id = $1 AND erased_at IS NULL FOR NO KEY UPDATE");
            let before = sqlx::query(sql).bind(Id(id)).try_map(user);
            let Some(before) = before.fetch_optional(&mut *transaction).await? else {
                return Ok(None);
            };
            let Some(after) = before.changed(role, locked, now) else { return Ok(Some(before)) };
            update(&mut transaction, &after).await?;
            if after.locked {
                end_sessions(&mut transaction, id).await?;
            }
            announce(&mut transaction, &ChangeKind::User(id), now).await?;
            transaction.commit().await?;
            Ok(Some(after))
        })
        .await
    }

    async fn erase(&self, id: UserId, now: Timestamp) -> Result<bool, Unavailable> {
        self.within(async {
            let mut transaction = self.pool().begin().await?;
            if !lock_user(&mut transaction, id).await? {
                return Ok(false);
            }
            let erase = sqlx::query(include_str!("sql/erase_user.sql"));
            erase.bind(Id(id)).bind(Instant(now)).execute(&mut *transaction).await?;
            let payment = sqlx::query(include_str!("sql/erase_payment.sql"));
            payment.bind(Id(id)).execute(&mut *transaction).await?;
            let preferences = sqlx::query("DELETE FROM preferences WHERE user_id = $1");
            preferences.bind(Id(id)).execute(&mut *transaction).await?;
            end_sessions(&mut transaction, id).await?;
            announce(&mut transaction, &ChangeKind::User(id), now).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }
}

impl PostgresAccounts {
    async fn create_or_refuse(&self, new: NewUser) -> Result<Result<User, Taken>, sqlx::Error> {
        let mut transaction = self.pool().begin().await?;
        if !insert(&mut transaction, &new).await? {
            return taken(&mut transaction, &new).await.map(Err);
        }
        sqlx::query(include_str!("sql/insert_subscription.sql"))
            .bind(Id(new.id))
            .bind(format!("sub_{}", uuid_at(new.now)))
            .bind(new.plan.as_str())
            .bind(Instant(new.now))
            .bind(new.payment_method_id.as_deref())
            .execute(&mut *transaction)
            .await?;
        announce(&mut transaction, &ChangeKind::Terms(new.id), new.now).await?;
        transaction.commit().await?;
        Ok(Ok(new.into_user()))
    }
}

async fn insert(transaction: &mut PgConnection, new: &NewUser) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(include_str!("sql/insert_user.sql"))
        .bind(Id(new.id))
        .bind(new.name.as_deref())
        .bind(new.email.as_ref().map(Email::as_str))
        .bind(new.email.as_ref().map(Email::key))
        .bind(new.external_id.as_deref())
        .bind(new.role.as_str())
        .bind(new.password.as_ref().map(|hash| hash.0.as_str()))
        .bind(new.search_text())
        .bind(Instant(new.now))
        .execute(transaction)
        .await?;
    Ok(inserted.rows_affected() > 0)
}

/// What stood in the way. The external id goes first: a service that repeats its request gets the
/// user it made.
async fn taken(transaction: &mut PgConnection, new: &NewUser) -> Result<Taken, sqlx::Error> {
    let sql = users_where!("external_id = $1");
    let found = sqlx::query(sql).bind(new.external_id.as_deref()).try_map(user);
    if let Some(found) = found.fetch_optional(&mut *transaction).await? {
        return Ok(Taken::ExternalId(Box::new(found)));
    }
    let sql = "SELECT true FROM users WHERE id = $1";
    let found: Option<bool> =
        sqlx::query_scalar(sql).bind(Id(new.id)).fetch_optional(transaction).await?;
    Ok(if found.is_some() { Taken::Id } else { Taken::Email })
}

async fn update(transaction: &mut PgConnection, user: &User) -> Result<(), sqlx::Error> {
    let sql = "UPDATE users SET role = $2::text::tokenmeter_role, locked = $3, updated_at = $4 \
               WHERE id = $1";
    sqlx::query(sql)
        .bind(Id(user.id))
        .bind(user.role.as_str())
        .bind(user.locked)
        .bind(Instant(user.updated_at))
        .execute(transaction)
        .await?;
    Ok(())
}

async fn end_sessions(transaction: &mut PgConnection, id: UserId) -> Result<(), sqlx::Error> {
    let end = sqlx::query("DELETE FROM refresh_tokens WHERE user_id = $1");
    end.bind(Id(id)).execute(transaction).await?;
    Ok(())
}

fn user(row: PgRow) -> Result<User, sqlx::Error> {
    let email: Option<String> = row.try_get("email")?;
    let email = email.map(|text| Email::new(&text)).transpose();
    Ok(User {
        id: user_id(&row, "id")?,
        name: row.try_get("name")?,
        email: email.map_err(|_| damaged("email holds no address".into()))?,
        external_id: row.try_get("external_id")?,
        role: word(&row, "role")?,
        locked: row.try_get("locked")?,
        created_at: instant(&row, "created_at")?,
        updated_at: instant(&row, "updated_at")?,
    })
}
