//! Users, credentials, subscriptions, preferences, and the feed of their changes in Postgres.
//!
//! Many processes write at once, at the isolation READ COMMITTED. Whoever changes something of a
//! user locks the user's row first, and takes the number of the change feed last: so what concerns
//! one user happens in turn, and no two transactions wait for each other.

mod api_keys;
mod changes;
mod login_attempts;
mod preferences;
mod sessions;
mod signing_keys;
mod subscriptions;
mod users;

use std::future::Future;

use metering::Unavailable;
use metering::accounts::UserId;
use sqlx::{PgConnection, PgPool};

use super::Database;
use super::values::Id;

/// Accounts and credentials in Postgres, shared by all processes.
#[derive(Clone, Debug)]
pub struct PostgresAccounts(Database);

impl PostgresAccounts {
    /// On a database whose schema was brought up to date.
    pub fn new(database: Database) -> Self {
        Self(database)
    }

    fn pool(&self) -> &PgPool {
        self.0.pool()
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>> + Send,
    ) -> Result<T, Unavailable> {
        self.0.within("accounts", work).await
    }
}

/// Waits for whoever changes something of this user, and makes others wait until the transaction
/// ends. `false`: no such user, or erased.
async fn lock_user(transaction: &mut PgConnection, id: UserId) -> Result<bool, sqlx::Error> {
    let sql = "SELECT true FROM users WHERE id = $1 AND erased_at IS NULL FOR NO KEY UPDATE";
    let found: Option<bool> =
        sqlx::query_scalar(sql).bind(Id(id)).fetch_optional(transaction).await?;
    Ok(found.is_some())
}
