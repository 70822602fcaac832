//! One database of a ClickHouse server, over HTTP.

use std::time::Duration;

use clickhouse::insert::Insert;
use clickhouse::insert_formatted::InsertFormatted;
use clickhouse::query::Query;
use clickhouse::{Client, Row};

use super::columns::Block;

/// A server that takes no data for so long is given up: the insert is made again.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings that answers and confirmations rest on, whatever the server's profile says. Those of
/// replication do nothing on plain tables.
const PINNED: [(&str, &str); 8] = [
    // A confirmation means stored, not queued.
    ("async_insert", "0"),
    // Repeated inserts replace themselves; the server's memory of blocks forgets them in a crash.
    ("insert_deduplicate", "0"),
    // No insert holds two rows of one key: to look for them costs almost half of it.
    ("optimize_on_insert", "0"),
    // On replicated tables: confirmed by a majority, and read from who has all of it.
    ("insert_quorum", "auto"),
    ("insert_quorum_parallel", "0"),
    ("select_sequential_consistency", "1"),
    // A view that fails must fail the insert.
    ("materialized_views_ignore_errors", "0"),
    ("max_partitions_per_insert_block", "0"),
];

/// The URL is not one of ClickHouse. Nothing was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ClickHouse URL is not valid: http://USER:PASSWORD@HOST:PORT/?database=NAME is expected"
)]
pub struct OpenError;

/// One ClickHouse database. Cheap to clone: all clones share the connections.
#[derive(Clone, Debug)]
pub struct Database {
    client: Client,
}

impl Database {
    /// Keeps the URL; connects when first asked. Without a database in it `default` is meant.
    ///
    /// # Errors
    /// [`OpenError`]: this is no URL of ClickHouse.
    pub fn connect(url: &str) -> Result<Self, OpenError> {
        let (scheme, rest) = url.split_once("://").ok_or(OpenError)?;
        if !matches!(scheme, "http" | "https") {
            return Err(OpenError);
        }
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        if host.is_empty() {
            return Err(OpenError);
        }
        // The client takes a database from the URL by itself, but no credentials. Rows are told apart
        // by their place: names and types with each answer would cost more than they find.
        let client = Client::default().with_url(format!("{scheme}://{host}{path}"));
        let mut client = client.with_validation(false);
        if let Some(credentials) = credentials {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            client = client.with_user(decoded(user)?).with_password(decoded(password)?);
        }
        for (name, value) in PINNED {
            client = client.with_setting(name, value);
        }
        Ok(Self { client })
    }

    /// The same server and credentials with another database.
    #[must_use]
    pub fn named(&self, database: &str) -> Self {
        Self { client: self.client.clone().with_database(database) }
    }

    /// A statement with `{name:Type}` where parameters stand.
    pub(crate) fn query(&self, sql: &str) -> Query {
        self.client.query_raw(sql)
    }

    /// A statement that changes something: answered when all of it is done.
    pub(crate) fn change(&self, sql: &str) -> Query {
        self.query(sql).with_setting("wait_end_of_query", "1")
    }

    /// An insert that ends within `end_timeout` after its last row, or is in doubt.
    pub(crate) async fn insert<R: Row>(
        &self,
        table: &str,
        end_timeout: Duration,
    ) -> Result<Insert<R>, clickhouse::error::Error> {
        let insert = self.client.insert::<R>(table).await?;
        let insert = insert.with_setting("wait_end_of_query", "1");
        Ok(insert.with_timeouts(Some(SEND_TIMEOUT), Some(end_timeout)))
    }

    /// The same in blocks of columns, for many rows.
    pub(crate) fn insert_blocks(&self, table: &str, end_timeout: Duration) -> BlockInsert {
        let insert =
            self.client.insert_formatted_with(format!("INSERT INTO {table} FORMAT Native"));
        let insert = insert.with_setting("wait_end_of_query", "1");
        BlockInsert(insert.with_timeouts(Some(SEND_TIMEOUT), Some(end_timeout)))
    }
}

/// An insert under way. Dropped before its end, nothing of it is stored for certain.
pub(crate) struct BlockInsert(InsertFormatted);

impl BlockInsert {
    pub(crate) async fn write<T>(
        &mut self,
        block: Block<'_, T>,
    ) -> Result<(), clickhouse::error::Error> {
        for part in block.finish() {
            self.0.send(part).await?;
        }
        Ok(())
    }

    /// Confirmed by the server.
    pub(crate) async fn end(self) -> Result<(), clickhouse::error::Error> {
        self.0.end().await
    }
}

/// Text with `%40` and the like.
fn decoded(text: &str) -> Result<String, OpenError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.ok_or(OpenError)?);
        bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_of_clickhouse_is_refused() {
        for url in ["", "127.0.0.1:8123", "postgres://127.0.0.1/x", "http://", "http://a%4@host"] {
            assert_eq!(Database::connect(url).err(), Some(OpenError), "{url}");
        }
        for url in ["http://127.0.0.1:8123", "https://u:p%40@host:8443/?database=usage"] {
            assert!(Database::connect(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn credentials_are_decoded() {
        assert_eq!(decoded("a%40b%3ac").as_deref(), Ok("a@b:c"));
        assert_eq!(decoded("%"), Err(OpenError));
    }
}
