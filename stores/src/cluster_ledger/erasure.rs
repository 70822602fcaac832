//! Erasing the metadata of a user: of what is stored, and of what is still to come from the log.

use std::collections::HashSet;

use metering::Unavailable;
use metering::accounts::UserId;
use sqlx::{PgConnection, Row as _};

use super::stored::{Id, STORE};
use super::{Shared, dead_letters};

/// See `UsageReports::erase_metadata`.
///
/// Whoever commits events asks who is erased when the rows are stored, before the COMMIT: who does
/// not find this user then has stored them before the erasure passes over what is stored.
pub(super) async fn erase_metadata(shared: &Shared, user: UserId) -> Result<(), Unavailable> {
    let insert = "INSERT INTO erased_users VALUES ($1) ON CONFLICT DO NOTHING";
    let insert = sqlx::query(insert).bind(Id(user));
    let noting = async { insert.execute(shared.postgres.pool()).await.map(drop) };
    shared.postgres.within(STORE, noting).await?;
    erase_events(shared, user).await?;
    dead_letters::erase_metadata(shared, user).await
}

/// Empties what ClickHouse holds now, on all replicas. It rewrites a column and takes its time; when it
/// takes too long it still goes on there, and who asks again finds less to do.
pub(super) async fn erase_events(shared: &Shared, user: UserId) -> Result<(), Unavailable> {
    let erase = "ALTER TABLE token_usage UPDATE metadata = '' \
                 WHERE user_id = {user:UUID} AND metadata != '' SETTINGS mutations_sync = 2";
    let erase = shared.clickhouse.change(erase).param("user", user.to_string());
    shared.ask(erase.execute()).await
}

/// Those of `users` who are erased.
pub(super) async fn erased_among(
    open: &mut PgConnection,
    users: &[UserId],
) -> Result<HashSet<UserId>, sqlx::Error> {
    let users: Vec<_> = users.iter().copied().map(Id).collect();
    let select = "SELECT user_id FROM erased_users WHERE user_id = ANY ($1)";
    let rows = sqlx::query(select).bind(users).fetch_all(open).await?;
    rows.iter().map(|row| row.try_get("user_id").map(|Id(user)| user)).collect()
}
