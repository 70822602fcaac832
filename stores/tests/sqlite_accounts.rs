//! The rule suites of accounts on `accounts.db`, and what only SQLite promises.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "rules are test code, though they stand outside of the test functions"
)]

#[macro_use]
#[path = "contract/rules.rs"]
mod rules;

#[macro_use]
mod contract {
    #[macro_use]
    pub(crate) mod accounts;
    #[macro_use]
    pub(crate) mod api_keys;
    #[macro_use]
    pub(crate) mod change_feed;
    #[macro_use]
    pub(crate) mod login_attempts;
    #[macro_use]
    pub(crate) mod preferences;
    #[macro_use]
    pub(crate) mod sessions;
    #[macro_use]
    pub(crate) mod signing_keys;
    #[macro_use]
    pub(crate) mod subscriptions;
}

use metering::accounts::{Accounts, ChangeFeed};
use stores::sqlite::{OpenError, SqliteAccounts};
use tempfile::TempDir;

/// A fresh `accounts.db`, gone when dropped.
struct Fresh {
    store: SqliteAccounts,
    directory: TempDir,
}

fn fresh() -> Fresh {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteAccounts::open(&directory.path().join("accounts.db")).unwrap();
    Fresh { store, directory }
}

accounts_contract!(super::fresh());
subscriptions_contract!(super::fresh());
preferences_contract!(super::fresh());
api_keys_contract!(super::fresh());
sessions_contract!(super::fresh());
login_attempts_contract!(super::fresh());
signing_keys_contract!(super::fresh());
change_feed_contract!(super::fresh());

#[tokio::test]
async fn two_processes_see_each_others_users_and_changes() {
    let server = fresh();
    let file = server.directory.path().join("accounts.db");
    let command_line = SqliteAccounts::open(&file).unwrap();
    let before = server.store.latest().await.unwrap();
    let made = command_line.create(contract::accounts::ada()).await.unwrap();
    assert_eq!(server.store.find(made.id).await.unwrap(), Some(made));
    assert!(server.store.latest().await.unwrap() > before);
}

#[tokio::test]
async fn writers_of_several_processes_take_turns() {
    let server = fresh();
    let file = server.directory.path().join("accounts.db");
    let others: Vec<_> = (0..4).map(|_| SqliteAccounts::open(&file).unwrap()).collect();
    let writes = (0..40).map(|number| {
        let store = others[number % others.len()].clone();
        tokio::spawn(async move {
            store.create(contract::accounts::service_subject(&format!("s-{number}"))).await
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    let changes = server.store.after(0).await.unwrap();
    assert_eq!(changes.len(), 40);
    assert!(changes.is_sorted_by(|one, next| one.number < next.number));
}

#[tokio::test]
async fn everything_is_there_when_the_file_is_opened_again() {
    let fresh = fresh();
    let made = fresh.store.create(contract::accounts::ada()).await.unwrap();
    let file = fresh.directory.path().join("accounts.db");
    drop(fresh.store);
    let again = SqliteAccounts::open(&file).unwrap();
    assert_eq!(again.find(made.id).await.unwrap(), Some(made));
}

#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let fresh = fresh();
    for file in ["accounts.db", "accounts.db-wal"] {
        let found = std::fs::metadata(fresh.directory.path().join(file)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("accounts.db");
    std::fs::write(&file, "not a database, but a text that is long enough".repeat(100)).unwrap();
    assert!(matches!(SqliteAccounts::open(&file), Err(OpenError::Damaged { .. })));
}
