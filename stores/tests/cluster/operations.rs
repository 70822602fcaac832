//! What whoever runs the cluster does: migrations, a new log, reconciliation, servers that are away.

use std::time::Duration;

use metering::usage::{
    Books, CommitError, LedgerLookup, ModelName, Offset, UsageEvent, UsageLedger, UsageReports,
};
use stores::clickhouse::{Database, SchemaError, check, migrate};
use stores::cluster_ledger::{ClusterLedger, LedgerSettings};

use super::{Tape, fresh, settings};
use crate::contract::counting::{
    OCTOBER, PARTITION, Subject, chat, counted, event, key, period, user,
};
use crate::servers;

#[tokio::test]
async fn clickhouse_is_migrated_once_and_only_by_files_that_are_ours() {
    let fresh = servers::clickhouse::empty().await;
    let database = fresh.connect();
    assert!(matches!(check(&database).await, Err(SchemaError::Behind { found: 0, .. })));
    let applied = migrate(&database).await.unwrap();
    assert!(applied > 0);
    check(&database).await.unwrap();
    assert_eq!(migrate(&database).await.unwrap(), 0);
    let latest = u32::try_from(applied).unwrap();
    fresh
        .execute(&format!(
            "INSERT INTO schema_migrations (version, name, checksum) \
             VALUES ({latest}, 'altered', 'other')"
        ))
        .await;
    assert!(matches!(migrate(&database).await, Err(SchemaError::Altered { .. })));
    fresh.execute("TRUNCATE TABLE schema_migrations").await;
    // A run that was cut off before it was noted is done again.
    assert_eq!(migrate(&database).await.unwrap(), applied);
    fresh
        .execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (99, 'x', 'y')")
        .await;
    assert!(matches!(check(&database).await, Err(SchemaError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_new_log_goes_on_where_the_old_one_was_left() {
    let cluster = fresh().await.store;
    counted(&*cluster.ledger(), [event(user(1), "a"), event(user(1), "b")]).await;
    let next = LedgerSettings { generation: 1, ..settings() };
    let ledger = cluster.another_with(next);
    let refused = ledger.take_over(PARTITION).await.unwrap_err();
    assert!(refused.reason.contains("--new-log"), "{refused}");
    assert_eq!(ledger.start_generation().await.unwrap(), 1);
    assert_eq!(ledger.start_generation().await.unwrap(), 0);
    let first = 1 << 48;
    let mut tape = Tape { first, ..Tape::new(PARTITION) };
    tape.append(event(user(1), "c"));
    tape.append(event(user(1), "b"));
    let committed = tape.count(&ledger, 0, 2).await.unwrap();
    assert_eq!(committed.cursor.position, Offset::new(first + 2));
    assert_eq!(committed.totals[0].totals, chat(360, 3));
    // The old log is over.
    cluster.ledger().take_over(PARTITION).await.unwrap_err();
    let known = ledger.known(&[key(&event(user(1), "a"))]).await.unwrap();
    assert_eq!(known.found[0].map(|known| known.offset), Some(Offset::new(0)));
    cluster.balances(3).await;
}

#[tokio::test]
async fn who_has_read_a_day_and_an_hour_does_not_read_them_again_for_another_model() {
    let cluster = fresh().await.store;
    let (ledger, mut tape) = (cluster.ledger(), Tape::new(PARTITION));
    tape.append(event(user(1), "a"));
    tape.append(UsageEvent { model: ModelName::new("another"), ..event(user(1), "b") });
    let committed = tape.count(&ledger, 0, 1).await.unwrap();
    // Whoever reads these rows adds to them.
    for table in ["token_usage_summary", "token_usage_hourly"] {
        let row = "SELECT * REPLACE ('another' AS model, 0 AS version)";
        let statement = format!("INSERT INTO {table} {row} FROM {table} FINAL");
        cluster.clickhouse.execute(&statement).await;
    }
    let flush = tape.flush_on(&ledger, committed.cursor.horizon, 1, 2).await;
    ledger.commit(flush).await.unwrap();
    cluster.balances(2).await;
}

#[tokio::test]
async fn books_name_what_differs_and_repair_mends_it() {
    let cluster = fresh().await.store;
    let events = ["a", "b"].map(|id| event(user(1), id));
    counted(&*cluster.ledger(), events.into_iter().chain([event(user(2), "c")])).await;
    for statement in [
        "INSERT INTO token_usage_summary SELECT * REPLACE (prompt_tokens + 5 AS prompt_tokens) \
         FROM token_usage_summary FINAL WHERE events = 2",
        "TRUNCATE TABLE token_usage_hourly",
    ] {
        cluster.clickhouse.execute(statement).await;
    }
    cluster.postgres("UPDATE usage_statistics SET chat = 7 WHERE chat = 1").await;
    let ledger = cluster.ledger();
    let (_, summaries) = ledger.summaries().await.unwrap();
    let daily = &summaries[0];
    assert_eq!((daily.expected, daily.found), (200, 205));
    assert!(daily.subject.contains(&format!("2026-10-15 user {}", user(1))), "{}", daily.subject);
    assert!(daily.subject.ends_with("prompt_tokens"), "{}", daily.subject);
    assert!(summaries[1..].iter().all(|difference| difference.subject.starts_with("hourly")));
    assert_eq!(summaries[1..].len(), 5);
    let (compared, statistics) = ledger.statistics().await.unwrap();
    assert_eq!((compared, statistics.len()), (2, 1));
    assert_eq!((statistics[0].expected, statistics[0].found), (1, 7));
    ledger.repair().await.unwrap();
    assert_eq!(ledger.summaries().await.unwrap(), (3, vec![]));
    assert_eq!(ledger.statistics().await.unwrap(), (2, vec![]));
    let month = ledger.monthly(user(1), period(OCTOBER)).await.unwrap();
    assert_eq!(month.totals, chat(240, 2));
}

#[tokio::test]
async fn statistics_and_events_that_the_other_side_lacks_are_named() {
    let cluster = fresh().await.store;
    counted(&*cluster.ledger(), [event(user(1), "a"), event(user(3), "b")]).await;
    cluster
        .postgres(&format!(
            "UPDATE usage_statistics SET user_id = '{}' WHERE user_id = '{}'",
            user(2),
            user(1)
        ))
        .await;
    let (compared, differences) = cluster.ledger().statistics().await.unwrap();
    let subjects: Vec<_> =
        differences.iter().map(|one| (&*one.subject, one.expected, one.found)).collect();
    assert_eq!((compared, subjects.len()), (2, 4), "{subjects:?}");
    assert!(subjects[0].0.contains(&user(1).to_string()), "{subjects:?}");
    assert_eq!((subjects[0].1, subjects[0].2, subjects[2].1, subjects[2].2), (120, 0, 0, 120));
}

#[tokio::test]
async fn without_clickhouse_nothing_is_committed_and_then_it_goes_on() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    tape.append(event(user(1), "a"));
    let flush = tape.flush(&cluster.ledger(), 0, 1).await;
    let hasty = LedgerSettings { commit_deadline: Duration::from_millis(300), ..settings() };
    let away = Database::connect("http://127.0.0.1:9/").unwrap();
    let ledger = ClusterLedger::new(away, cluster.postgres.connect(), hasty);
    // Nothing was counted yet, so that nothing is loaded.
    ledger.take_over(PARTITION).await.unwrap();
    let failed = ledger.commit(flush.clone()).await.unwrap_err();
    let CommitError::Unavailable(why) = failed else { panic!("{failed}") };
    assert_eq!(why.store, "ledger");
    ledger.known(&[key(&event(user(1), "a"))]).await.unwrap_err();
    cluster.ledger().commit(flush).await.unwrap();
    cluster.balances(1).await;
}
