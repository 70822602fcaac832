//! A database of its own for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use stores::postgres::{Database, PoolSettings, migrate};

static MADE: AtomicU32 = AtomicU32::new(0);

/// An empty database, dropped with this. Its name holds the process's id, so that test programs do
/// not meet.
pub(crate) struct FreshDatabase {
    name: String,
    /// Where it is.
    pub(crate) url: String,
}

/// An empty database.
pub(crate) async fn empty() -> FreshDatabase {
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("tokenmeter_test_{}_{number}", std::process::id());
    let server = super::url("POSTGRES_URL");
    let (address, _) = server.rsplit_once('/').unwrap();
    let url = format!("{address}/{name}");
    // What a run that was killed has left behind under the same process id.
    drop_database(name.clone()).await;
    administer(format!("CREATE DATABASE {name}")).await;
    FreshDatabase { name, url }
}

/// A database with the schema of today.
pub(crate) async fn migrated() -> FreshDatabase {
    let fresh = empty().await;
    let database = fresh.connect();
    migrate(&database).await.unwrap();
    database.close().await;
    fresh
}

impl FreshDatabase {
    /// As another process connects to it.
    pub(crate) fn connect(&self) -> Database {
        Database::connect(&self.url, PoolSettings::default()).unwrap()
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime cannot be waited for from within.
        let dropped = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(drop_database(name));
        });
        assert!(dropped.join().is_ok() || std::thread::panicking(), "{} is left", self.name);
    }
}

/// Ends its connections. Those of the server's own housekeeping only the plain statement may end.
async fn drop_database(name: String) {
    for how in ["WITH (FORCE)", "", "WITH (FORCE)", "", "WITH (FORCE)"] {
        if try_to(format!("DROP DATABASE IF EXISTS {name} {how}")).await.is_ok() {
            return;
        }
    }
    panic!("{name} cannot be dropped");
}

async fn administer(statement: String) {
    try_to(statement).await.unwrap();
}

async fn try_to(statement: String) -> sqlx::Result<()> {
    let mut server = PgConnection::connect(&super::url("POSTGRES_URL")).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut server).await?;
    server.close().await
}
