//! Stores that fail, or that count in the middle of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use ingest::Parts;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{QuotaCounter, Totals};
use metering::time::{Clock, Period};
use metering::trace::TraceParent;
use metering::usage::{
    AdmittedEvent, AppendError, Appended, EventLog, IdDigest, Known, LedgerLookup, TotalsAt,
};
use serde_json::json;

use crate::house::{BATCH, House, OWN, Stores, chat, with};

/// A log that can be told to fail after it has stored what it was given.
struct Doubtful {
    inner: Arc<dyn EventLog>,
    fails: AtomicBool,
    full: AtomicBool,
    appends: AtomicUsize,
}

#[async_trait]
impl EventLog for Doubtful {
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        trace: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        let appended = self.inner.append(events, trace).await?;
        if self.fails.load(Ordering::SeqCst) {
            return Err(Unavailable::new("event_log", "the disk is full: /dev/sda1").into());
        }
        Ok(appended)
    }

    fn has_room(&self) -> Result<(), Unavailable> {
        let full = self.full.load(Ordering::SeqCst);
        if full { Err(Unavailable::new("event_log", "too much waits")) } else { Ok(()) }
    }
}

async fn with_doubtful_log() -> (House, Arc<Doubtful>) {
    let mut doubtful = None;
    let house = House::with(|parts, stores| {
        let inner = stores.log.clone();
        let (fails, full, appends) = Default::default();
        let log = Arc::new(Doubtful { inner, fails, full, appends });
        doubtful = Some(log.clone());
        Parts { log, ..parts }
    })
    .await;
    (house, doubtful.unwrap())
}

#[tokio::test]
async fn what_the_log_does_not_confirm_is_not_acknowledged_and_a_retry_counts_once() {
    let (house, log) = with_doubtful_log().await;
    let user = house.user("free").await;
    log.fails.store(true, Ordering::SeqCst);
    let event = with(chat(10), json!({"event_id": "e1"}));
    let failed = house.post(OWN, &user.token, &event).await;
    assert_eq!(failed.refused(), (503, "unavailable"));
    assert_eq!(failed.header("retry-after"), "1");
    assert!(!failed.body.to_string().contains("sda1"));
    assert!(failed.body.get("event_id").is_none(), "the client has its id");
    let failed = house.post(OWN, &user.token, &chat(5)).await;
    let made = failed.body["event_id"].as_str().unwrap().to_owned();

    log.fails.store(false, Ordering::SeqCst);
    house.post(OWN, &user.token, &event).await.expect(200);
    house.post(OWN, &user.token, &with(chat(5), json!({"event_id": made}))).await.expect(200);
    house.stores.count().await;
    let period = Period::of(house.clock.now());
    let standing = house.stores.counter.usage(user.id, period).await.unwrap().unwrap();
    assert_eq!(standing.used, Totals { tokens: 15, requests: [2, 0, 0] });
}

#[tokio::test]
async fn while_too_much_waits_to_be_counted_nothing_is_let_in_and_repeats_are_answered() {
    let (house, log) = with_doubtful_log().await;
    let user = house.user("free").await;
    let known = with(chat(10), json!({"event_id": "known"}));
    house.post(OWN, &user.token, &known).await.expect(201);
    house.stores.count().await;
    log.full.store(true, Ordering::SeqCst);
    let refused = house.post(OWN, &user.token, &chat(5)).await;
    assert_eq!(refused.refused(), (503, "unavailable"));
    assert_eq!(refused.header("retry-after"), "1");
    house.post(OWN, &user.token, &known).await.expect(200);
    let batch = json!([known, chat(5)]);
    assert_eq!(house.post(BATCH, &user.token, &batch).await.refused(), (503, "unavailable"));
    let period = Period::of(house.clock.now());
    let standing = house.stores.counter.usage(user.id, period).await.unwrap().unwrap();
    assert_eq!(standing.used, Totals { tokens: 10, requests: [1, 0, 0] });
    log.full.store(false, Ordering::SeqCst);
    house.post(OWN, &user.token, &chat(5)).await.expect(201);
}

#[tokio::test]
async fn a_batch_that_the_log_does_not_confirm_is_refused_whole_with_its_ids() {
    let (house, log) = with_doubtful_log().await;
    let user = house.user("free").await;
    log.fails.store(true, Ordering::SeqCst);
    let batch = json!([with(chat(1), json!({"event_id": "a"})), "bad", chat(2)]);
    let failed = house.post(BATCH, &user.token, &batch).await;
    assert_eq!(failed.refused(), (503, "unavailable"));
    let ids = failed.body["event_ids"].as_array().unwrap();
    assert_eq!((&ids[0], &ids[1]), (&json!("a"), &json!(null)));
    log.fails.store(false, Ordering::SeqCst);
    let retry = json!([batch[0], with(chat(2), json!({"event_id": ids[2]}))]);
    let again = house.post(BATCH, &user.token, &retry).await.expect(200);
    assert_eq!((&again.body["accepted"], &again.body["duplicates"]), (&json!(0), &json!(2)));
}

#[tokio::test]
async fn a_batch_is_one_append() {
    let (house, log) = with_doubtful_log().await;
    let user = house.user("professional").await;
    let batch: Vec<_> = (0..2000).map(|_| chat(1)).collect();
    house.post(BATCH, &user.token, &json!(batch)).await.expect(200);
    assert_eq!(log.appends.load(Ordering::SeqCst), 1);
    let refused = json!([with(chat(1), json!({"model": "none"}))]);
    house.post(BATCH, &user.token, &refused).await.expect(200);
    assert_eq!(log.appends.load(Ordering::SeqCst), 1, "nothing to append");
}

/// A ledger into which everything that waits is counted just after the first look-up.
struct CountsMeanwhile {
    stores: Stores,
    armed: AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl LedgerLookup for CountsMeanwhile {
    async fn known(&self, ids: &[(UserId, IdDigest)]) -> Result<Known, Unavailable> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let known = self.stores.ledger.known(ids).await?;
        if self.armed.swap(false, Ordering::SeqCst) {
            self.stores.count().await;
        }
        Ok(known)
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        self.stores.ledger.totals(users).await
    }
}

async fn with_counting_ledger() -> (House, Arc<CountsMeanwhile>) {
    let mut counting = None;
    let house = House::with(|parts, stores| {
        let (armed, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let lookup = Arc::new(CountsMeanwhile { stores: stores.clone(), armed, asked });
        counting = Some(lookup.clone());
        Parts { lookup, ..parts }
    })
    .await;
    (house, counting.unwrap())
}

#[tokio::test]
async fn an_event_counted_between_look_up_and_admission_is_withdrawn() {
    let (house, ledger) = with_counting_ledger().await;
    let user = house.user("free").await;
    let event = with(chat(10), json!({"event_id": "e1"}));
    house.post(OWN, &user.token, &event).await.expect(201);
    ledger.armed.store(true, Ordering::SeqCst);
    let repeat = house.post(OWN, &user.token, &event).await.expect(200);
    assert_eq!(repeat.body["duplicate"], true);
    assert_eq!(repeat.body["usage"]["used"], 10);
    assert!(house.logged().await.is_empty(), "nothing was published again");
    let audit = house.stores.counter.audit().await.unwrap();
    assert!(audit.iter().all(|user| user.in_flight.is_empty()), "{audit:?}");
}

#[tokio::test]
async fn a_repeat_is_not_refused_because_it_was_counted_meanwhile() {
    let (house, ledger) = with_counting_ledger().await;
    let user = house.user("free").await;
    let all = with(chat(100_000), json!({"event_id": "all"}));
    house.post(OWN, &user.token, &all).await.expect(201);
    ledger.armed.store(true, Ordering::SeqCst);
    let batch = json!([all, all]);
    let repeat = house.post(BATCH, &user.token, &batch).await.expect(200);
    assert_eq!(repeat.body["duplicates"], 2, "{}", repeat.body);
    let reused = with(chat(99_999), json!({"event_id": "all"}));
    let reused = house.post(OWN, &user.token, &reused).await;
    assert_eq!(reused.refused(), (409, "event_id_reused"));
}

#[tokio::test]
async fn repeats_within_a_batch_follow_a_withdrawn_event() {
    let (house, ledger) = with_counting_ledger().await;
    let user = house.user("free").await;
    let event = with(chat(10), json!({"event_id": "e1"}));
    house.post(OWN, &user.token, &event).await.expect(201);
    ledger.armed.store(true, Ordering::SeqCst);
    let batch = json!([event, event, with(chat(1), json!({"event_id": "new"}))]);
    let answer = house.post(BATCH, &user.token, &batch).await.expect(200);
    assert_eq!((&answer.body["accepted"], &answer.body["duplicates"]), (&json!(1), &json!(2)));
    assert_eq!(house.logged().await, ["new"]);
}

#[tokio::test]
async fn ids_that_the_server_makes_are_not_looked_up() {
    let (house, ledger) = with_counting_ledger().await;
    let user = house.user("free").await;
    house.post(OWN, &user.token, &chat(1)).await.expect(201);
    house.post(OWN, &user.token, &chat(100_000)).await.expect(429);
    assert_eq!(ledger.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn before_refusals_only_the_ledger_is_asked_before_a_refusal() {
    let house = House::with(|parts, _| Parts { look_up: ingest::LookUp::BeforeRefusal, ..parts });
    let house = house.await;
    let user = house.user("free").await;
    let all = with(chat(100_000), json!({"event_id": "all"}));
    house.post(OWN, &user.token, &all).await.expect(201);
    house.stores.count().await;
    house.post(OWN, &user.token, &all).await.expect(200);
    let small = with(chat(0), json!({"event_id": "small"}));
    house.post(OWN, &user.token, &small).await.expect(201);
    house.stores.count().await;
    house.post(OWN, &user.token, &small).await.expect(201);
}

#[tokio::test]
async fn a_conflict_with_what_is_in_flight_is_looked_up_before_it_is_told() {
    let house = House::with(|parts, _| Parts { look_up: ingest::LookUp::BeforeRefusal, ..parts });
    let house = house.await;
    let user = house.user("free").await;
    let first = with(chat(10), json!({"event_id": "e1"}));
    house.post(OWN, &user.token, &first).await.expect(201);
    house.stores.count().await;
    // This door tells a reused id only while the first event is in flight.
    let other = with(chat(11), json!({"event_id": "e1"}));
    house.post(OWN, &user.token, &other).await.expect(201);
    let retry = house.post(OWN, &user.token, &first).await.expect(200);
    assert_eq!(retry.body["duplicate"], true);
}
