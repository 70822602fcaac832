use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;

use super::*;
use crate::traffic::traffic;
use crate::yardstick;

async fn listening(router: Router) -> Address {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Address { authority }
}

fn load(address: Address, batch: u32) -> Arc<Load> {
    Arc::new(Load {
        address,
        api_key: "key".to_owned(),
        traffic: Arc::new(traffic(10, 0.05, 0.0)),
        books: Some(Arc::new(Books::new())),
        batch,
        retries: 0,
        connections: 4,
        threads: 2,
    })
}

fn window(span: Duration, rate: Option<f64>) -> Window {
    let start = Instant::now();
    let schedule = Schedule::new(start, span, rate);
    Window { schedule, measured_from: start, first_position: 0 }
}

#[tokio::test]
async fn an_open_load_sends_what_is_due_and_no_more() {
    let load = load(listening(yardstick::router()).await, 1);
    let (tally, sent) = run(&load, window(Duration::from_millis(300), Some(500.0))).await.unwrap();
    assert_eq!((sent, tally.not_sent), (150, 0));
    assert!(tally.problems.is_empty(), "{:?}", tally.problems);
    let books = load.books.as_ref().unwrap().summary();
    let distinct: std::collections::HashSet<_> =
        (0..150).map(|position| load.traffic.event_at(position)).collect();
    assert_eq!(books.acknowledged, u64::try_from(distinct.len()).unwrap());
}

#[tokio::test]
async fn a_closed_load_of_batches_reaches_the_server() {
    let load = load(listening(yardstick::router()).await, 100);
    let (tally, sent) = run(&load, window(Duration::from_millis(200), None)).await.unwrap();
    assert!(tally.requests > 0 && sent >= tally.requests);
    assert_eq!(tally.outcomes.accepted, tally.requests * 100);
}

#[tokio::test]
async fn a_stall_is_charged_to_all_that_was_due_meanwhile() {
    async fn stall_at_the_first(State(seen): State<Arc<AtomicU64>>) -> StatusCode {
        // The first request on each of the four connections.
        if seen.fetch_add(1, Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        StatusCode::CREATED
    }
    let seen = Arc::new(AtomicU64::new(0));
    let router =
        Router::new().route("/api/tokens/track", post(stall_at_the_first)).with_state(seen);
    let load = load(listening(router).await, 1);
    let (tally, _) = run(&load, window(Duration::from_millis(400), Some(1000.0))).await.unwrap();
    let slow = |latencies: &Latencies| latencies.slower_than(Duration::from_millis(100));
    assert_eq!(slow(&tally.service), 4, "only four were slow by themselves");
    assert!(slow(&tally.latency) > 150, "{} were due and waited", slow(&tally.latency));
}

#[tokio::test]
async fn a_request_in_doubt_is_sent_again() {
    async fn unavailable_once(State(seen): State<Arc<AtomicU64>>) -> (StatusCode, &'static str) {
        if seen.fetch_add(1, Ordering::SeqCst) == 0 {
            (StatusCode::SERVICE_UNAVAILABLE, r#"{"success":false,"code":"unavailable"}"#)
        } else {
            (StatusCode::OK, r#"{"success":true,"duplicate":true}"#)
        }
    }
    let seen = Arc::new(AtomicU64::new(0));
    let router = Router::new()
        .route("/api/tokens/track", post(unavailable_once))
        .with_state(Arc::clone(&seen));
    let load = load(listening(router).await, 1);
    let load = Load { retries: 1, ..Arc::into_inner(load).unwrap() };
    let mut sender = Sender::new(&load);
    let mut problems = BTreeMap::new();
    sender.write_request(0);
    sender.send(&mut problems).await;
    assert_eq!(sender.outcomes, [Outcome::Duplicate]);
    assert_eq!(problems, BTreeMap::from([("503 unavailable".to_owned(), 1)]));
}

#[tokio::test]
async fn a_server_that_is_not_there_leaves_events_in_doubt() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    drop(listener);
    let load = load(Address { authority }, 1);
    let (tally, _) = run(&load, window(Duration::from_millis(100), Some(50.0))).await.unwrap();
    assert_eq!(tally.outcomes.answered(), 0);
    assert_eq!(load.books.as_ref().unwrap().summary().acknowledged, 0);
    assert!(load.books.as_ref().unwrap().summary().in_doubt > 0);
}

fn outcomes(batch: bool, status: u16, body: &str) -> (Vec<Outcome>, Option<String>) {
    let mut outcomes = vec![Outcome::InDoubt];
    let answer = Answer { status, body: body.as_bytes() };
    let problem = read_outcomes(batch, if batch { 4 } else { 1 }, &answer, &mut outcomes);
    (outcomes, problem)
}

#[test]
fn each_answer_to_a_single_event_has_its_outcome() {
    let of = |status, body| outcomes(false, status, body);
    assert_eq!(of(201, "{}"), (vec![Outcome::Accepted], None));
    assert_eq!(of(200, r#"{"duplicate":true}"#), (vec![Outcome::Duplicate], None));
    let (refused, problem) = of(429, r#"{"success":false,"code":"token_limit_reached"}"#);
    assert_eq!(refused, [Outcome::Refused]);
    assert_eq!(problem.as_deref(), Some("429 token_limit_reached"));
    assert_eq!(of(503, "").0, [Outcome::InDoubt]);
    assert_eq!(of(408, "").0, [Outcome::InDoubt]);
}

#[test]
fn a_batch_answer_lists_what_was_not_plainly_accepted() {
    use Outcome::{Accepted, Duplicate, InDoubt, Refused};
    let body = r#"{"success":true,"accepted":2,"duplicates":1,"rejected":1,"results":[
        {"index":1,"event_id":"a","status":"duplicate"},
        {"index":3,"event_id":"b","status":"rejected","code":"token_limit_reached","detail":"x \" y"}]}"#;
    assert_eq!(outcomes(true, 200, body), (vec![Accepted, Duplicate, Accepted, Refused], None));
    assert_eq!(outcomes(true, 503, "").0, [InDoubt; 4]);
    assert_eq!(outcomes(true, 422, "").0, [Refused; 4]);
    assert_eq!(outcomes(true, 200, "cut o").0, [InDoubt; 4]);
}
