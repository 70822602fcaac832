//! Ledgers of before, in which each event had a row.

use std::time::Duration;

use metering::usage::{Books, Metadata, Offset, UsageEvent, UsageReports};

use crate::contract::counting::{Log, Subject, event, key, user};
use crate::{Ledger, fresh, history_of, until};

/// Makes a `ledger.db` of the second schema, in which each event had a row: of users 1 to 3, in turn, of
/// which only the first has notes. The last event is `last`.
fn make_ledger_of_rows(ledger: &Ledger, events: u64, last: &UsageEvent) {
    ledger.close();
    for name in ["ledger.db", "ids.db"] {
        std::fs::remove_file(ledger.file(name)).unwrap();
    }
    let open = ledger.other_process();
    for migration in [
        include_str!("../../../migrations/sqlite/ledger/0001_ledger.sql"),
        include_str!("../../../migrations/sqlite/ledger/0002_void_and_ticks.sql"),
    ] {
        open.execute_batch(migration).unwrap();
    }
    open.pragma_update(None, "user_version", 2).unwrap();
    for number in 1..4 {
        open.execute("INSERT INTO users (id) VALUES (?)", [user(number).as_bytes()]).unwrap();
    }
    open.execute_batch("INSERT INTO names (name) VALUES ('gpt-4'), ('free')").unwrap();
    let (_, digest) = key(last);
    let rows = "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?1)
        INSERT INTO events SELECT
          n, 1 + n % 3, ?2 + n, ?2 + n + 5, ?2 + n + 9, 0, 1, 2, 100, 20, 7, 3, 1, 0,
          iif(n + 1 < ?1, randomblob(16), ?3), zeroblob(8), iif(n + 1 < ?1, 'event ' || n, ?4),
          iif(n % 3 = 0, '{\"a\":1}', NULL)
        FROM numbers";
    let time = last.occurred_at.as_millis();
    open.execute(rows, rusqlite::params![events, time, digest.0, last.event_id.as_str()]).unwrap();
    let books = format!(
        "INSERT INTO cursors VALUES (0, 0, {events}, {time}, {events}, 0, 0, 0, 0);
        INSERT INTO daily SELECT day, user, 0, 1, 2, count(*), sum(prompt), sum(completion),
          sum(cached), sum(reasoning), {events} FROM dated_events GROUP BY 1, 2;
        INSERT INTO hourly SELECT hour, 0, 1, 2, count(*), sum(prompt), sum(completion),
          sum(cached), sum(reasoning), {events} FROM dated_events GROUP BY 1;
        INSERT INTO statistics SELECT user, 2026 * 12 + 9, sum(prompt + completion), count(*), 0, 0
          FROM events GROUP BY 1"
    );
    open.execute_batch(&books).unwrap();
}

#[tokio::test]
async fn a_ledger_of_rows_becomes_one_of_blocks() {
    // Two steps.
    const EVENTS: u64 = 60_000;
    let ledger = fresh().store;
    let last = event(user(3), "the last");
    make_ledger_of_rows(&ledger, EVENTS, &last);
    ledger.reopen();
    let book = ledger.ledger().raw().await.unwrap();
    assert_eq!((book.events, book.tokens), (EVENTS, EVENTS * 120));
    assert_eq!(ledger.ledger().summaries().await.unwrap().1, []);
    assert_eq!(ledger.ledger().statistics().await.unwrap(), (3, vec![]));
    let counted = until(async || ledger.known(&last).await).await;
    assert_eq!(counted.offset, Offset::new(EVENTS - 1));
    let newest = ledger.ledger().history(&history_of(3, 2)).await.unwrap();
    assert_eq!(newest[0].event_id, last.event_id);
    assert_eq!(newest[1].event_id.as_str(), "event 59996");
    let position = (newest[0].position.occurred_at, newest[0].position.offset);
    assert_eq!(
        position,
        (last.occurred_at.plus(Duration::from_millis(EVENTS - 1)), counted.offset)
    );
    assert_eq!(newest[0].received_at, position.0.plus(Duration::from_millis(5)));
    assert_eq!((newest[0].tokens, newest[0].flags.bits()), (last.tokens, 1));
    let noted = ledger.ledger().history(&history_of(1, 100_000)).await.unwrap();
    assert_eq!(noted.len() as u64, EVENTS / 3);
    let notes = noted.iter().map(|row| row.metadata.as_ref().map(Metadata::as_str));
    assert!(notes.into_iter().all(|note| note == Some("{\"a\":1}")));
    let mut log = Log::default();
    for _ in 0..EVENTS {
        log.append(last.clone());
    }
    log.skip(usize::try_from(EVENTS).unwrap());
    log.append(event(user(3), "new"));
    log.append(last);
    log.count(&*ledger.ledger()).await.unwrap();
    assert_eq!(ledger.ledger().raw().await.unwrap().events, EVENTS + 1);
    let rows = "SELECT count(*) FROM sqlite_master WHERE name IN ('events', 'events_by_user')";
    let left: u64 = ledger.other_process().query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn rows_that_a_killed_process_left_are_moved_by_the_next_one() {
    let (ledger, whole) = (fresh().store, fresh().store);
    let last = event(user(3), "the last");
    for each in [&ledger, &whole] {
        make_ledger_of_rows(each, 300, &last);
    }
    // As after the first of several steps.
    let open = ledger.other_process();
    open.execute_batch("CREATE TABLE later AS SELECT * FROM events WHERE offset >= 100").unwrap();
    open.execute_batch("DELETE FROM events WHERE offset >= 100").unwrap();
    let schema = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'events'";
    let schema: String = open.query_row(schema, [], |row| row.get(0)).unwrap();
    ledger.reopen();
    ledger.close();
    open.execute_batch(&schema).unwrap();
    open.execute_batch("INSERT INTO events SELECT * FROM later; DROP TABLE later").unwrap();
    ledger.reopen();
    whole.reopen();
    for number in 1..4 {
        let of = history_of(number, 1000);
        let expected = whole.ledger().history(&of).await.unwrap();
        assert_eq!(ledger.ledger().history(&of).await.unwrap(), expected);
    }
    assert_eq!(ledger.ledger().raw().await.unwrap(), whole.ledger().raw().await.unwrap());
}
