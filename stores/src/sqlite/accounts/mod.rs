//! `accounts.db`: users, credentials, subscriptions, preferences, and the feed of their changes.
//!
//! Several processes have it open at once (the server and the command line): writers take turns
//! with `BEGIN IMMEDIATE`, readers never wait for them.

mod api_keys;
mod changes;
mod login_attempts;
mod preferences;
mod sessions;
mod signing_keys;
mod subscriptions;
mod users;

use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior};

use super::database::Durability;
use super::{Database, OpenError};

const DATABASE: Database = Database {
    migrations: &[include_str!("../../../../migrations/sqlite/accounts/0001_accounts.sql")],
    durability: Durability::Full,
    busy_timeout: Duration::from_secs(5),
};

/// Readers beside the writer. Too few and look-ups of unknown callers queue; each costs a file
/// handle and its page cache.
const READERS: usize = 4;

/// Accounts and credentials in one SQLite file; every commit survives a loss of power.
#[derive(Clone)]
pub struct SqliteAccounts(Arc<Connections>);

struct Connections {
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    /// Closed last: only a connection that may write moves the journal into the file.
    writer: Mutex<Connection>,
}

impl SqliteAccounts {
    /// Opens the file, makes it when it is missing (readable by its owner only: it holds the key
    /// that signs access tokens), and brings its schema up to date.
    ///
    /// # Errors
    /// [`OpenError`]: it was written by a newer program, or SQLite refuses it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        make_private(path);
        let writer = Mutex::new(DATABASE.open(path)?);
        let readers = (0..READERS).map(|_| DATABASE.open_reader(path).map(Mutex::new));
        let readers = readers.collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Connections { writer, readers, next_reader: AtomicUsize::new(0) })))
    }

    async fn read<T, F>(&self, question: F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let connections = Arc::clone(&self.0);
        off_the_workers(move || {
            let turn = connections.next_reader.fetch_add(1, Ordering::Relaxed);
            let reader = &connections.readers[turn % connections.readers.len()];
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            question(&reader)
        })
        .await
    }

    /// Runs `change` in a transaction that is committed when it returns `Ok`.
    async fn write<T, F>(&self, change: F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let connections = Arc::clone(&self.0);
        off_the_workers(move || {
            // A panic inside left no transaction open: it was rolled back when it was dropped.
            let mut writer = connections.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let outcome = change(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        })
        .await
    }
}

async fn off_the_workers<T, F>(work: F) -> Result<T, Unavailable>
where
    T: Send + 'static,
    F: FnOnce() -> rusqlite::Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| Unavailable::new("accounts", error)),
        Err(stopped) => Err(Unavailable::new("accounts", stopped)),
    }
}

/// SQLite gives its journal files the mode of the database. A file that is there keeps the mode
/// that its owner gave it; one that cannot be made is SQLite's to refuse.
fn make_private(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    drop(made);
}

fn user_id(row: &Row<'_>, column: &str) -> rusqlite::Result<UserId> {
    row.get(column).map(UserId::from_bytes)
}

fn instant(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

fn maybe_instant(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

/// A text that only this program wrote: another one means a damaged file.
fn word<T: FromStr>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| damaged(format!("{column} holds {text:?}")))
}

fn damaged(what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, what.into())
}
