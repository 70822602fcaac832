//! The schema of Postgres: fresh, again, altered, newer, and over an application's own tables.

#![allow(clippy::unwrap_used, reason = "helpers stand outside of the test functions")]

mod servers;

use argon2::{Argon2, PasswordVerifier};
use metering::accounts::{
    Accounts, Email, PreferenceStore, Preferences, Role, Subscription, SubscriptionStatus,
    Subscriptions, User, UserId, UserQuery,
};
use metering::time::Timestamp;
use servers::postgres::{FreshDatabase, empty, migrated};
use stores::postgres::{Database, PostgresAccounts, SchemaError, check, migrate};

const BY_UUID: &str = include_str!("data/before_token_tracking.sql");
const BY_TEXT: &str = include_str!("data/before_token_tracking_by_text.sql");
const ADA: &str = "0191b8a0-0000-7000-8000-000000000001";
const AERGER: &str = "5f0c5b1e-3f5e-4d3a-9d3c-0b6f6a1d2e3f";
const GRACE: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

async fn run(database: &Database, statements: &'static str) {
    sqlx::raw_sql(statements).execute(database.pool()).await.unwrap();
}

async fn count(database: &Database, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(database.pool()).await.unwrap()
}

/// An application's database, upgraded.
async fn upgraded(before: &'static str) -> (Database, FreshDatabase) {
    let fresh = empty().await;
    let database = fresh.connect();
    run(&database, before).await;
    migrate(&database).await.unwrap();
    check(&database).await.unwrap();
    (database, fresh)
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

async fn found(store: &PostgresAccounts, id: &str) -> (User, Subscription) {
    let id: UserId = id.parse().unwrap();
    let user = store.find(id).await.unwrap().unwrap();
    (user, store.of_users(&[id]).await.unwrap().remove(0).unwrap())
}

async fn by_email(store: &PostgresAccounts, email: &str) -> (User, Option<String>) {
    let email = Email::new(email).unwrap();
    let (user, password) = store.find_login(&email).await.unwrap().unwrap();
    (user, password.map(|hash| hash.0))
}

#[tokio::test]
async fn an_empty_database_is_behind_until_it_is_migrated() {
    let fresh = empty().await;
    let database = fresh.connect();
    assert!(matches!(check(&database).await, Err(SchemaError::Behind { found: 0, .. })));
    assert!(migrate(&database).await.unwrap() > 0);
    check(&database).await.unwrap();
    assert_eq!(migrate(&database).await.unwrap(), 0);
}

#[tokio::test]
async fn of_two_that_migrate_at_once_each_step_is_applied_by_one() {
    let fresh = empty().await;
    let (one, other) = (fresh.connect(), fresh.connect());
    let (first, second) = tokio::join!(migrate(&one), migrate(&other));
    let applied = i64::try_from(first.unwrap() + second.unwrap()).unwrap();
    assert_eq!(count(&one, "SELECT count(*) FROM schema_migrations").await, applied);
    check(&other).await.unwrap();
}

#[tokio::test]
async fn a_step_that_was_altered_after_it_was_applied_is_told() {
    let fresh = migrated().await;
    let database = fresh.connect();
    run(&database, "UPDATE schema_migrations SET checksum = '\\x00' WHERE version = 2").await;
    for error in [check(&database).await.unwrap_err(), migrate(&database).await.unwrap_err()] {
        let SchemaError::Altered { name } = error else { panic!("{error}") };
        assert_eq!(name, "0002_accounts");
    }
}

#[tokio::test]
async fn a_step_that_landed_after_a_later_one_is_not_passed_over() {
    let fresh = empty().await;
    let database = fresh.connect();
    migrate(&database).await.unwrap();
    let without_the_third = "DROP TABLE cursors, usage_statistics, dead_letters, erased_users; \
                             DELETE FROM schema_migrations WHERE version = 3";
    run(&database, without_the_third).await;
    assert!(matches!(check(&database).await, Err(SchemaError::Behind { .. })));
    assert_eq!(migrate(&database).await.unwrap(), 1);
    check(&database).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_refused() {
    let fresh = migrated().await;
    let database = fresh.connect();
    run(&database, "INSERT INTO schema_migrations VALUES (9999, 'later', '', now())").await;
    for error in [check(&database).await.unwrap_err(), migrate(&database).await.unwrap_err()] {
        assert!(matches!(error, SchemaError::Newer { found: 9999, .. }), "{error}");
    }
}

#[tokio::test]
async fn users_of_an_application_are_there_with_their_ids_times_and_roles() {
    let (database, _fresh) = upgraded(BY_UUID).await;
    let store = PostgresAccounts::new(database);
    let (ada, _) = found(&store, ADA).await;
    assert_eq!(ada.name.as_deref(), Some("Ada Lovelace"));
    assert_eq!(ada.email.as_ref().map(Email::as_str), Some("Ada@Example.com"));
    assert_eq!((ada.role, ada.locked, ada.external_id), (Role::Admin, false, None));
    assert_eq!(ada.created_at, at("2024-02-29T23:59:59.999Z"));
    assert_eq!(ada.updated_at, at("2025-03-30T02:30:00.001Z"));
    assert_eq!(found(&store, GRACE).await.0.role, Role::User);
    let query = |search: &str| UserQuery { search: Some(search.into()), after: None, rows_max: 9 };
    let users = store.list(&query("ärger@")).await.unwrap().users;
    assert_eq!(users.iter().map(|user| user.id.to_string()).collect::<Vec<_>>(), [AERGER]);
    assert_eq!(store.list(&query("")).await.unwrap().users.len(), 3);
}

#[tokio::test]
async fn whoever_has_a_hash_of_argon2_can_log_in_with_it() {
    let (database, _fresh) = upgraded(BY_UUID).await;
    let store = PostgresAccounts::new(database);
    let (ada, hash) = by_email(&store, "aDA@example.COM").await;
    assert_eq!(ada.id.to_string(), ADA);
    let verified = |hash: &str| Argon2::default().verify_password(b"password", hash);
    verified(&hash.unwrap()).unwrap();
    let (_, other) = by_email(&store, "grace@example.com").await;
    assert!(verified(&other.unwrap()).is_err(), "bcrypt is not Argon2");
    assert_eq!(by_email(&store, "äRGER@example.com").await.1, None);
}

#[tokio::test]
async fn everybody_has_one_subscription_and_the_plan_free_without_any() {
    let (database, _fresh) = upgraded(BY_UUID).await;
    let store = PostgresAccounts::new(database.clone());
    let (_, ada) = found(&store, ADA).await;
    assert_eq!(ada.id, "aaaaaaaa-0000-4000-8000-000000000002");
    assert_eq!((ada.plan.as_str(), ada.status), ("professional", SubscriptionStatus::Active));
    assert_eq!(ada.start_date, at("2024-12-31T00:00:00Z"));
    assert_eq!(ada.expires_at, Some(at("2124-12-31T00:00:00.500Z")));
    assert_eq!((ada.auto_renew, ada.version), (false, 1));
    let (_, expired) = found(&store, AERGER).await;
    assert_eq!((expired.plan.as_str(), expired.status), ("basic", SubscriptionStatus::Canceled));
    let (grace, made) = found(&store, GRACE).await;
    assert_eq!((made.plan.as_str(), made.status), ("free", SubscriptionStatus::Active));
    assert_eq!((made.start_date, made.expires_at), (grace.created_at, None));
    assert_eq!(count(&database, "SELECT count(*) FROM former_subscriptions").await, 1);
}

#[tokio::test]
async fn users_of_an_application_get_preferences_sessions_and_changes_like_all_others() {
    let (database, _fresh) = upgraded(BY_UUID).await;
    let store = PostgresAccounts::new(database);
    let (grace, _) = found(&store, GRACE).await;
    let now = at("2026-11-22T00:00:00Z");
    let made = store.of_user(grace.id, now).await.unwrap().unwrap();
    assert_eq!((made.default_model.as_str(), made.created_at), (Preferences::DEFAULT_MODEL, now));
    let locked = store.update(grace.id, Some(Role::Admin), Some(true), now).await.unwrap().unwrap();
    assert_eq!((locked.role, locked.locked), (Role::Admin, true));
    assert!(store.erase(grace.id, now).await.unwrap());
    assert_eq!(store.find(grace.id).await.unwrap(), None);
}

#[tokio::test]
async fn ids_that_are_no_uuids_become_external_ids_and_references_follow() {
    let (database, _fresh) = upgraded(BY_TEXT).await;
    let store = PostgresAccounts::new(database.clone());
    let (upper, made) = found(&store, AERGER).await;
    assert_eq!(upper.email.as_ref().map(Email::as_str), Some("upper@example.com"));
    assert_eq!((upper.role, upper.external_id), (Role::Admin, None));
    assert_eq!(upper.created_at, at("2024-05-01T10:00:00Z"));
    assert_eq!(made.plan.as_str(), "free");
    let external = ["clh3x2k9d0000qz8f7g6h5j4k", "42", "gone"].map(String::from);
    let ids = store.find_external(&external).await.unwrap();
    let [Some(cuid), Some(number), None] = ids[..] else { panic!("{ids:?}") };
    let (user, subscription) = found(&store, &cuid.to_string()).await;
    assert_eq!((user.role, user.name), (Role::User, None));
    assert_eq!(subscription.plan.as_str(), "basic");
    assert_eq!(subscription.expires_at, Some(at("2124-01-01T00:00:00Z")));
    let (user, subscription) = found(&store, &number.to_string()).await;
    assert_eq!((user.role, user.email), (Role::Admin, None));
    assert_eq!(subscription.plan.as_str(), "free");
    assert_eq!(subscription.status, SubscriptionStatus::PastDue);
    let paid = "SELECT count(*) FROM invoices JOIN users ON users.id = payer_id";
    assert_eq!(count(&database, paid).await, 2);
    assert_eq!(count(&database, "SELECT count(*) FROM former_subscriptions").await, 1);
}

#[tokio::test]
async fn an_upgraded_database_takes_new_users_like_a_fresh_one() {
    for before in [BY_UUID, BY_TEXT, ""] {
        let (database, _fresh) = upgraded(before).await;
        let columns = "SELECT count(*) FROM information_schema.columns \
                       WHERE table_schema = 'public' AND table_name IN ('users', 'subscriptions') \
                       AND column_name NOT IN ('locale')";
        assert_eq!(count(&database, columns).await, 12 + 13, "{before}");
        let dull = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass \
                    AND attnum > 0 AND attnotnull AND NOT atthasdef AND attname <> 'id'";
        assert_eq!(count(&database, dull).await, 0, "{before}");
        let store = PostgresAccounts::new(database);
        let now = at("2026-11-22T00:00:00Z");
        let user = metering::accounts::NewUser {
            id: UserId::generate(now),
            name: None,
            email: Some(Email::new("new@example.com").unwrap()),
            external_id: None,
            role: Role::Admin,
            password: None,
            plan: metering::quota::PlanName::new("enterprise"),
            payment_method_id: None,
            now,
        };
        let made = Accounts::create(&store, user).await.unwrap();
        let (found, subscription) = found(&store, &made.id.to_string()).await;
        assert_eq!((found, subscription.plan.as_str()), (made, "enterprise"));
    }
}

#[tokio::test]
async fn what_an_upgrade_cannot_read_is_told_and_nothing_is_changed() {
    for (spoil, mend, told) in [
        (
            "INSERT INTO users (id, email) VALUES ('43', 'no address')",
            "UPDATE users SET email = NULL WHERE id = '43'",
            "these users have an e-mail that is no address: ",
        ),
        (
            "INSERT INTO users (id, email) VALUES ('43', 'CUID@example.com')",
            "DELETE FROM users WHERE id = '43'",
            "these addresses differ only by case, change one: cuid@example.com",
        ),
        (
            "INSERT INTO subscriptions (user_id, status) VALUES ('42', 'frozen')",
            "UPDATE subscriptions SET status = 'canceled' WHERE status = 'frozen'",
            "subscriptions have an unknown status: frozen",
        ),
    ] {
        let fresh = empty().await;
        let database = fresh.connect();
        run(&database, BY_TEXT).await;
        run(&database, spoil).await;
        let error = migrate(&database).await.unwrap_err();
        let SchemaError::Refused { name, source } = error else { panic!("{error}") };
        assert_eq!(name, "0002_accounts");
        assert!(source.to_string().contains(told), "{source}");
        assert_eq!(count(&database, "SELECT count(*) FROM users WHERE id = '42'").await, 1);
        let behind = check(&database).await.unwrap_err();
        assert!(matches!(behind, SchemaError::Behind { found: 1, .. }), "{behind}");
        run(&database, mend).await;
        migrate(&database).await.unwrap();
    }
}
