//! What the cluster's servers say of themselves, for `tokenmeter doctor`.

use std::error::Error;

use metering::Unavailable;
use metering::time::Timestamp;
use sqlx::Row as _;

use crate::{clickhouse, postgres};

/// A server that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// As it tells it.
    pub version: String,
    /// By its clock.
    pub now: Timestamp,
    /// Settings with which the promises of the product do not hold.
    pub warnings: Vec<String>,
}

/// Postgres: `synchronous_commit` and `fsync` must be on.
///
/// # Errors
/// [`Unavailable`]: it does not answer.
pub async fn postgres(database: &postgres::Database) -> Result<ServerStatus, Unavailable> {
    let select = "SELECT current_setting('server_version'), \
                  (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
                  current_setting('fsync'), current_setting('synchronous_commit')";
    let reading = async { sqlx::query(select).fetch_one(database.pool()).await };
    let row = database.within("accounts", reading).await?;
    let mut warnings = Vec::new();
    if row.get::<String, _>(2) != "on" {
        warnings.push("fsync is off: what was counted may be lost with the power".to_owned());
    }
    if row.get::<String, _>(3) == "off" {
        warnings.push("synchronous_commit is off: what was counted may be lost".to_owned());
    }
    let now = Timestamp::from_millis(row.get(1));
    Ok(ServerStatus { version: row.get(0), now, warnings })
}

/// ClickHouse.
///
/// # Errors
/// [`Unavailable`]: it does not answer.
pub async fn clickhouse(database: &clickhouse::Database) -> Result<ServerStatus, Unavailable> {
    let select = "SELECT version(), toUnixTimestamp64Milli(now64(3))";
    let row = database.query(select).fetch_one::<(String, i64)>().await;
    let (version, now) = row.map_err(|error| Unavailable::new("ledger", with_cause(&error)))?;
    Ok(ServerStatus { version, now: Timestamp::from_millis(now), warnings: Vec::new() })
}

/// What an error and its first cause say: that a connection failed says nothing about why.
fn with_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    format!("{error}: {cause}")
}

/// Redis: it must never evict.
///
/// # Errors
/// [`Unavailable`]: it does not answer.
pub async fn redis(url: &str) -> Result<ServerStatus, Unavailable> {
    let unavailable = |error: redis::RedisError| Unavailable::new("quota_counter", error);
    let client = redis::Client::open(url).map_err(unavailable)?;
    let mut link = client.get_multiplexed_async_connection().await.map_err(unavailable)?;
    let (seconds, micros): (i64, i64) =
        redis::cmd("TIME").query_async(&mut link).await.map_err(unavailable)?;
    let info: String = redis::cmd("INFO").query_async(&mut link).await.map_err(unavailable)?;
    let field = |name: &str| {
        let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim).unwrap_or_default().to_owned()
    };
    let mut warnings = Vec::new();
    if field("maxmemory_policy") != "noeviction" {
        warnings.push("maxmemory-policy must be noeviction: counters would be lost".to_owned());
    }
    let now = Timestamp::from_millis(seconds * 1000 + micros / 1000);
    Ok(ServerStatus { version: field("redis_version"), now, warnings })
}
