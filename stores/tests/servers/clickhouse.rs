//! A ClickHouse database of its own for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use stores::clickhouse::{Database, migrate};

static MADE: AtomicU32 = AtomicU32::new(0);

/// A database, dropped with this. Its name holds the process's id, so that test programs do not meet.
pub(crate) struct FreshDatabase {
    name: String,
    /// Where it is.
    pub(crate) url: String,
}

/// An empty database.
pub(crate) async fn empty() -> FreshDatabase {
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("tokenmeter_test_{}_{number}", std::process::id());
    let server = super::url("CLICKHOUSE_URL");
    let url = format!("{}/?database={name}", server.trim_end_matches('/'));
    administer(&format!("DROP DATABASE IF EXISTS {name} SYNC")).await;
    administer(&format!("CREATE DATABASE {name}")).await;
    FreshDatabase { name, url }
}

/// A database with the schema of today.
pub(crate) async fn migrated() -> FreshDatabase {
    let fresh = empty().await;
    migrate(&fresh.connect()).await.unwrap();
    fresh
}

impl FreshDatabase {
    /// As another process connects to it.
    pub(crate) fn connect(&self) -> Database {
        Database::connect(&self.url).unwrap()
    }

    /// Runs a statement of the test's own.
    pub(crate) async fn execute(&self, statement: &str) {
        self.client().query(statement).execute().await.unwrap();
    }

    /// A client of the test's own.
    pub(crate) fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default().with_url(&self.url).with_validation(false)
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime cannot be waited for from within.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(administer(&format!("DROP DATABASE {name} SYNC")));
        });
        assert!(dropped.join().is_ok() || std::thread::panicking());
    }
}

async fn administer(statement: &str) {
    let server = clickhouse::Client::default().with_url(super::url("CLICKHOUSE_URL"));
    server.query(statement).execute().await.unwrap();
}
