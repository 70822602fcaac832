//! The rule suites of accounts and epochs on Postgres, what only Postgres promises, and which log is
//! counted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "rules are test code, though they stand outside of the test functions"
)]

#[macro_use]
#[path = "contract/rules.rs"]
mod rules;
mod servers;

#[macro_use]
mod contract {
    #[macro_use]
    pub(crate) mod accounts;
    #[macro_use]
    pub(crate) mod api_keys;
    #[macro_use]
    pub(crate) mod change_feed;
    #[macro_use]
    pub(crate) mod epochs;
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

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use contract::accounts::{ada, now, service_subject};
use metering::accounts::{Accounts, AddressKey, ApiKeyId, ChangeFeed, ChangeKind, LoginAttempts};
use metering::quota::Epochs as _;
use servers::postgres::FreshDatabase;
use sqlx::PgPool;
use stores::postgres::log_generations::{self, LogGeneration};
use stores::postgres::{Database, PoolSettings, PostgresAccounts, PostgresEpochs};

/// What stands on a database of its own, dropped with it.
struct Fresh<S> {
    store: S,
    database: FreshDatabase,
}

async fn fresh() -> Fresh<PostgresAccounts> {
    let database = servers::postgres::migrated().await;
    Fresh { store: PostgresAccounts::new(database.connect()), database }
}

async fn fresh_epochs() -> Fresh<PostgresEpochs> {
    let database = servers::postgres::migrated().await;
    Fresh { store: PostgresEpochs::new(database.connect(), 0), database }
}

accounts_contract!(super::fresh().await);
subscriptions_contract!(super::fresh().await);
preferences_contract!(super::fresh().await);
api_keys_contract!(super::fresh().await);
sessions_contract!(super::fresh().await);
login_attempts_contract!(super::fresh().await);
signing_keys_contract!(super::fresh().await);
change_feed_contract!(super::fresh().await);
epochs_contract!(super::fresh_epochs().await);

impl Fresh<PostgresAccounts> {
    /// As another process has it.
    fn other_process(&self) -> PostgresAccounts {
        PostgresAccounts::new(self.database.connect())
    }

    /// Waits until somebody waits for a lock.
    async fn until_somebody_waits(&self, pool: &PgPool) {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + Duration::from_secs(4);
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.unwrap() == 0 {
            assert!(Instant::now() < deadline, "nobody waits");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn two_processes_see_each_others_users_and_changes() {
    let server = fresh().await;
    let command_line = server.other_process();
    let before = server.store.latest().await.unwrap();
    let made = command_line.create(ada()).await.unwrap();
    assert_eq!(server.store.find(made.id).await.unwrap(), Some(made));
    assert!(server.store.latest().await.unwrap() > before);
}

#[tokio::test]
async fn a_reader_misses_no_change_of_many_writers() {
    let server = fresh().await;
    let others: Vec<_> = (0..4).map(|_| server.other_process()).collect();
    let writes: Vec<_> = (0..60)
        .map(|number| {
            let store = others[number % others.len()].clone();
            let user = service_subject(&format!("s-{number}"));
            tokio::spawn(async move { store.create(user).await })
        })
        .collect();
    let mut seen = vec![];
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.len() < writes.len() {
        assert!(Instant::now() < deadline, "{} of 60 changes were seen", seen.len());
        let last = seen.last().copied().unwrap_or(0);
        let next = server.store.after(last).await.unwrap();
        seen.extend(next.into_iter().map(|change| change.number));
    }
    assert!(seen.is_sorted_by(|one, next| one < next));
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(server.store.latest().await.unwrap(), seen[seen.len() - 1]);
}

#[tokio::test]
async fn who_took_a_number_first_commits_first() {
    let server = fresh().await;
    let other = server.database.connect();
    let mut slow = other.pool().begin().await.unwrap();
    let number = "UPDATE change_number SET number = number + 1 RETURNING number";
    let number: i64 = sqlx::query_scalar(number).fetch_one(&mut *slow).await.unwrap();
    let insert = "INSERT INTO changes VALUES ($1, 'api_key', 'slow', now())";
    sqlx::query(insert).bind(number).execute(&mut *slow).await.unwrap();
    let store = server.other_process();
    let quick = tokio::spawn(async move { store.create(ada()).await });
    server.until_somebody_waits(other.pool()).await;
    assert_eq!(server.store.after(0).await.unwrap(), []);
    slow.commit().await.unwrap();
    let quick = quick.await.unwrap().unwrap();
    let kinds = server.store.after(0).await.unwrap().into_iter().map(|change| change.kind);
    let expected = [ChangeKind::ApiKey(ApiKeyId("slow".into())), ChangeKind::Terms(quick.id)];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced() {
    let server = fresh().await;
    let made = server.store.create(ada()).await.unwrap();
    let other = server.database.connect();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let cut: i64 = sqlx::query_scalar(cut).fetch_one(other.pool()).await.unwrap();
    assert!(cut > 0);
    assert_eq!(server.store.find(made.id).await.unwrap(), Some(made));
}

#[tokio::test]
async fn what_somebody_keeps_locked_is_not_waited_for_without_end() {
    let server = fresh().await;
    let short =
        PoolSettings { statement_timeout: Duration::from_millis(300), ..PoolSettings::default() };
    let store = PostgresAccounts::new(Database::connect(&server.database.url, short).unwrap());
    let made = store.create(ada()).await.unwrap();
    let other = server.database.connect();
    let mut keeper = other.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE users").execute(&mut *keeper).await.unwrap();
    let error = store.find(made.id).await.unwrap_err();
    assert_eq!(error.store, "accounts");
    assert!(error.reason.contains("statement timeout"), "{error}");
    keeper.rollback().await.unwrap();
    assert_eq!(store.find(made.id).await.unwrap(), Some(made));
}

#[tokio::test]
async fn a_server_that_is_away_is_told_soon_and_found_when_it_is_back() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    let settings = PoolSettings {
        connect_timeout: Duration::from_millis(300),
        statement_timeout: Duration::from_millis(300),
        ..PoolSettings::default()
    };
    // It takes connections and never says a word, as a stopped one does.
    let url = format!("postgres://nobody@{address}/nothing");
    let store = PostgresAccounts::new(Database::connect(&url, settings).unwrap());
    let started = Instant::now();
    assert!(store.latest().await.is_err());
    drop(closed);
    assert!(store.latest().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn attempts_of_the_day_before_are_let_go() {
    let server = fresh().await;
    let key = AddressKey::Client("127.0.0.1".into());
    server.store.note(&key, now()).await.unwrap();
    let later = now().plus(Duration::from_secs(86_401));
    server.store.note(&key, later).await.unwrap();
    assert_eq!(server.store.count(&key, now()).await.unwrap(), (1, Some(later)));
}

#[tokio::test]
async fn what_is_no_url_of_postgres_is_refused() {
    for url in ["", "localhost", "mysql://localhost/accounts", "postgres://localhost:x/"] {
        assert!(Database::connect(url, PoolSettings::default()).is_err(), "{url}");
    }
}

#[tokio::test]
async fn a_log_begins_only_when_the_one_before_it_is_left() {
    let fresh = fresh_epochs().await;
    let database = fresh.database.connect();
    let log = |number: u16| LogGeneration {
        number,
        topic: format!("events.{number}"),
        topic_id: format!("cluster/{number}"),
        partitions: NonZeroU32::MIN,
    };
    for _ in 0..2 {
        log_generations::start(&database, &log(0)).await.unwrap();
    }
    assert!(!fresh.store.log_is_left().await.unwrap());
    assert!(log_generations::start(&database, &log(1)).await.is_err());
    assert_eq!(log_generations::current(&database).await.unwrap(), Some(log(0)));
    log_generations::set_left(&database, 0, true).await.unwrap();
    assert!(fresh.store.log_is_left().await.unwrap());
    log_generations::start(&database, &log(1)).await.unwrap();
    assert_eq!(log_generations::current(&database).await.unwrap(), Some(log(1)));
    assert!(!PostgresEpochs::new(database, 1).log_is_left().await.unwrap());
}
