use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{ApiKeyId, Change, ChangeFeed, ChangeKind};
use metering::time::Timestamp;
use rusqlite::{Row, Transaction, params};

use super::{SqliteAccounts, damaged, user_id};

#[async_trait]
impl ChangeFeed for SqliteAccounts {
    async fn latest(&self) -> Result<u64, Unavailable> {
        self.read(|connection| {
            let sql = "SELECT coalesce(max(number), 0) FROM changes";
            connection.prepare_cached(sql)?.query_row([], |row| row.get(0).map(number))
        })
        .await
    }

    async fn after(&self, after: u64) -> Result<Vec<Change>, Unavailable> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let sql = "SELECT number, kind, subject FROM changes WHERE number > ?1 ORDER BY number";
            connection.prepare_cached(sql)?.query_map([after], change)?.collect()
        })
        .await
    }

    /// A fourth of the second within which a lock or a revocation by the command line must be in
    /// force: both reads are one step in a B-tree, so that asking costs next to nothing.
    fn poll_interval(&self) -> Duration {
        Duration::from_millis(250)
    }
}

/// Puts a change on the feed, in the transaction that makes it.
pub(super) fn announce(
    transaction: &Transaction<'_>,
    kind: &ChangeKind,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let (word, subject) = match kind {
        ChangeKind::User(id) => ("user", id.as_bytes().as_slice()),
        ChangeKind::Terms(id) => ("terms", id.as_bytes().as_slice()),
        ChangeKind::ApiKey(id) => ("api_key", id.0.as_bytes()),
    };
    transaction.execute(
        "INSERT INTO changes (kind, subject, at) VALUES (?1, ?2, ?3)",
        params![word, subject, now.as_millis()],
    )?;
    Ok(())
}

fn change(row: &Row<'_>) -> rusqlite::Result<Change> {
    let kind: String = row.get("kind")?;
    let kind = match kind.as_str() {
        "user" => ChangeKind::User(user_id(row, "subject")?),
        "terms" => ChangeKind::Terms(user_id(row, "subject")?),
        "api_key" => {
            let id = String::from_utf8(row.get("subject")?);
            ChangeKind::ApiKey(ApiKeyId(id.map_err(|error| damaged(error.to_string()))?))
        }
        _ => return Err(damaged(format!("kind holds {kind:?}"))),
    };
    Ok(Change { number: number(row.get("number")?), kind })
}

fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}
