//! The index of counted ids beside the ledger: after a kill, a loss of power, or damage it knows what the
//! ledger knows.

use metering::usage::{KnownEvent, LedgerLookup};
use rusqlite::Connection;

use crate::contract::counting::{Log, Subject, counted, event, key, user};
use crate::{fresh, until};

#[tokio::test]
async fn after_a_kill_all_counted_ids_are_known() {
    let (ledger, killed) = (fresh().store, fresh().store);
    let events: Vec<_> = (0..500).map(|n| event(user(1), &format!("event {n}"))).collect();
    counted(&*ledger.ledger(), events.clone()).await;
    killed.close();
    // What a killed process leaves: no close, no checkpoint.
    for name in ["ledger.db", "ledger.db-wal", "ids.db", "ids.db-wal"] {
        std::fs::copy(ledger.file(name), killed.file(name)).unwrap();
    }
    killed.reopen();
    for event in &events {
        assert!(killed.known(event).await.is_some());
    }
    assert_eq!(killed.known(&event(user(1), "new")).await, None);
}

#[tokio::test]
async fn what_the_ledger_lost_with_the_power_is_not_known_from_the_index() {
    let ledger = fresh().store;
    let mut log = counted(&*ledger.ledger(), [event(user(1), "a")]).await;
    ledger.close();
    let older = std::fs::read(ledger.file("ledger.db")).unwrap();
    ledger.reopen();
    log.append(event(user(1), "b"));
    log.count(&*ledger.ledger()).await.unwrap();
    ledger.close();
    std::fs::write(ledger.file("ledger.db"), older).unwrap();
    ledger.reopen();
    assert!(ledger.known(&event(user(1), "a")).await.is_some());
    assert_eq!(ledger.known(&event(user(1), "b")).await, None);
    let mut again = Log::default();
    again.append(event(user(1), "a"));
    again.append(event(user(1), "b"));
    again.skip(1);
    again.count(&*ledger.ledger()).await.unwrap();
    assert_eq!(ledger.tokens().await, 240);
}

#[tokio::test]
async fn the_index_of_another_ledger_is_not_used() {
    let (ledger, other) = (fresh().store, fresh().store);
    counted(&*ledger.ledger(), [event(user(1), "mine")]).await;
    counted(&*other.ledger(), [event(user(1), "theirs")]).await;
    ledger.close();
    other.close();
    std::fs::copy(other.file("ids.db"), ledger.file("ids.db")).unwrap();
    ledger.reopen();
    assert!(ledger.known(&event(user(1), "mine")).await.is_some());
    assert_eq!(ledger.known(&event(user(1), "theirs")).await, None);
}

#[tokio::test]
async fn an_index_of_the_first_schema_is_made_anew_from_the_ledger() {
    let ledger = fresh().store;
    counted(&*ledger.ledger(), ["a", "b"].map(|id| event(user(1), id))).await;
    ledger.close();
    std::fs::remove_file(ledger.file("ids.db")).unwrap();
    let owner: Vec<u8> = ledger
        .other_process()
        .query_row("SELECT identity FROM ledger", [], |row| row.get(0))
        .unwrap();
    let first = Connection::open(ledger.file("ids.db")).unwrap();
    first.execute_batch(include_str!("../../../migrations/sqlite/ids/0001_ids.sql")).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    for id in ["a", "b"] {
        let (_, digest) = key(&event(user(1), id));
        first.execute("INSERT INTO ids VALUES (?, 0, zeroblob(8))", [digest.0]).unwrap();
    }
    let all = "UPDATE progress SET ledger = ?, indexed_to = 2, ids = 2";
    first.execute(all, [owner]).unwrap();
    drop(first);
    ledger.reopen();
    for id in ["a", "b"] {
        assert!(ledger.known(&event(user(1), id)).await.is_some());
    }
    assert_eq!(ledger.known(&event(user(1), "new")).await, None);
}

/// So many that the index is made of several chunks, and is made anew in the background.
const MANY: u64 = 280_000;

#[tokio::test]
async fn an_index_of_many_ids_that_is_damaged_is_made_anew() {
    let ledger = fresh().store;
    let name = |number: u64| event(user(u8::try_from(number % 50).unwrap()), &number.to_string());
    let mut log = Log::default();
    for number in 0..MANY {
        log.append(name(number));
        if log.end().number() % (MANY / 2) == 0 {
            log.count(&*ledger.ledger()).await.unwrap();
        }
    }
    let sample: Vec<_> = (0..MANY + 1000).step_by(97).collect();
    let asked: Vec<_> = sample.iter().map(|number| key(&name(*number))).collect();
    let offsets = |found: &[Option<KnownEvent>]| -> Vec<_> {
        found.iter().map(|known| known.map(|known| known.offset.number())).collect()
    };
    let expected: Vec<_> =
        sample.iter().map(|number| Some(*number).filter(|number| *number < MANY)).collect();
    let indexed = || {
        let open = Connection::open(ledger.file("ids.db")).unwrap();
        open.query_row("SELECT ids FROM progress", [], |row| row.get::<_, u64>(0)).ok()
    };
    // While generations move to the index, and when all have moved.
    for enough in [0, MANY] {
        until(async || indexed().filter(|ids| *ids >= enough)).await;
        let known = ledger.ledger().known(&asked).await.unwrap();
        assert_eq!(offsets(&known.found), expected, "{enough} ids indexed");
    }
    ledger.close();
    std::fs::write(ledger.file("ids.db"), b"this is no database, though it is long enough")
        .unwrap();
    ledger.reopen();
    // Until the index is there again nobody is told that an id is new.
    let known = until(async || ledger.ledger().known(&asked).await.ok()).await;
    assert_eq!(offsets(&known.found), expected);
    assert_eq!(indexed(), Some(MANY));
}
