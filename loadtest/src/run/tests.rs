//! Whole runs against a meter in miniature, an honest one and some that break the promise.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser as _;
use serde_json::{Value, json};

use super::*;
use crate::options::Comparison;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Acknowledges an event and forgets it.
    Loses,
    /// Counts a repeat again.
    CountsRepeats,
    /// Counts an event for more than it was.
    Inflates,
}

/// One user's events by id, and how often each was counted.
type Events = BTreeMap<String, (Value, u64)>;

/// What a meter keeps, by user.
struct Meter {
    fault: Fault,
    users: Mutex<BTreeMap<String, Events>>,
}

async fn make_user(State(meter): State<Arc<Meter>>) -> Response {
    let mut users = meter.users.lock().unwrap();
    let id = format!("user-{}", users.len());
    users.insert(id.clone(), BTreeMap::new());
    (StatusCode::CREATED, json!({ "id": id }).to_string()).into_response()
}

impl Meter {
    fn count(&self, mut event: Value) -> bool {
        let mut users = self.users.lock().unwrap();
        let events = users.get_mut(event["user_id"].as_str().unwrap()).unwrap();
        let id = event["event_id"].as_str().unwrap().to_owned();
        if let Some((_, times)) = events.get_mut(&id) {
            *times += u64::from(self.fault == Fault::CountsRepeats);
            return false;
        }
        let odd = events.len() == 2;
        if odd && self.fault == Fault::Inflates {
            event["prompt_tokens"] = json!(event["prompt_tokens"].as_u64().unwrap() + 1);
        }
        let times = u64::from(!(odd && self.fault == Fault::Loses));
        events.insert(id, (event, times));
        true
    }
}

async fn track(State(meter): State<Arc<Meter>>, body: Bytes) -> Response {
    let fresh = meter.count(serde_json::from_slice(&body).unwrap());
    let status = if fresh { StatusCode::CREATED } else { StatusCode::OK };
    (status, "{}").into_response()
}

async fn track_batch(State(meter): State<Arc<Meter>>, body: Bytes) -> String {
    let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
    let results: Vec<_> = events
        .into_iter()
        .enumerate()
        .filter(|(_, event)| !meter.count(event.clone()))
        .map(|(index, _)| json!({"index": index, "status": "duplicate"}))
        .collect();
    json!({ "results": results }).to_string()
}

fn sums(events: &Events) -> (u64, u64, u64) {
    events.values().fold((0, 0, 0), |(count, prompt, completion), (event, times)| {
        let of = |name: &str| event[name].as_u64().unwrap() * times;
        (count + times, prompt + of("prompt_tokens"), completion + of("completion_tokens"))
    })
}

async fn tokens(State(meter): State<Arc<Meter>>, Path(user): Path<String>) -> String {
    let (_, prompt, completion) = sums(&meter.users.lock().unwrap()[&user]);
    let used = prompt + completion;
    json!({"current_period": {"tokens_used": used}, "usage": {"used": used, "limit": null}})
        .to_string()
}

async fn history(
    State(meter): State<Arc<Meter>>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> String {
    assert_eq!(headers["accept"], "text/csv");
    let columns = [
        "event_id",
        "request_type",
        "model",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
    ];
    let mut text = columns.join(",") + "\r\n";
    for (event, times) in meter.users.lock().unwrap()[&user].values() {
        let fields = columns.map(|name| event[name].to_string().replace('"', ""));
        (0..*times).for_each(|_| text += &(fields.join(",") + "\r\n"));
    }
    text
}

async fn usage(State(meter): State<Arc<Meter>>) -> String {
    let users = meter.users.lock().unwrap();
    let series: Vec<_> = users
        .iter()
        .map(|(user, events)| {
            let (count, prompt, completion) = sums(events);
            json!({"user_id": user, "events": count, "prompt_tokens": prompt,
                   "completion_tokens": completion})
        })
        .collect();
    json!({ "series": series }).to_string()
}

async fn report_of(fault: Fault, books: Comparison, batch: u32) -> Report {
    let meter = Arc::new(Meter { fault, users: Mutex::default() });
    let router = Router::new()
        .route("/api/users", post(make_user))
        .route("/api/tokens/track", post(track))
        .route("/api/tokens/track/batch", post(track_batch))
        .route("/api/users/{id}/tokens", get(tokens))
        .route("/api/users/{id}/tokens/history", get(history))
        .route("/api/tokens/admin/usage", get(usage))
        .with_state(meter);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let key = std::env::temp_dir().join(format!("loadtest-key-{}", url.replace(['/', ':'], "-")));
    std::fs::write(&key, "key\n").unwrap();
    let options = Options::parse_from([
        "loadtest",
        "--url",
        &url,
        "--api-key-file",
        key.to_str().unwrap(),
        "--rate",
        "1000",
        "--duration",
        "300ms",
        "--warmup",
        "100ms",
        "--windows",
        "2",
        "--yardstick",
        "0s",
        "--users",
        "5",
        "--connections",
        "4",
        "--repeats",
        "0.1",
        "--over-limit",
        "0.2",
    ]);
    let report = run(Options { books, batch, probe: fault == Fault::None, ..options }).await;
    std::fs::remove_file(&key).unwrap();
    report.unwrap()
}

#[tokio::test]
async fn the_books_of_an_honest_meter_balance() {
    for (books, batch) in
        [(Comparison::History, 1), (Comparison::Totals, 1), (Comparison::History, 10)]
    {
        let report = report_of(Fault::None, books, batch).await;
        assert!(report.passed(), "{}", report.text());
        assert_eq!(report.books.balanced, Some(true));
        let audit = report.books.audit.as_ref().unwrap();
        assert_eq!(audit.counted, report.books.listed.acknowledged);
        assert!(report.server.outcomes.duplicates > 0 && audit.counted > 100);
        assert!(report.probe.as_ref().unwrap().tracked > 0);
        assert!(serde_json::to_string(&report).unwrap().contains("accepted_to_visible"));
    }
}

#[tokio::test]
async fn an_event_that_was_acknowledged_and_lost_is_noticed() {
    let audit = report_of(Fault::Loses, Comparison::Totals, 1).await.books.audit.unwrap();
    assert_eq!(audit.wrong_users, 5);
}

#[tokio::test]
async fn a_repeat_that_is_counted_is_noticed() {
    let report = report_of(Fault::CountsRepeats, Comparison::History, 10).await;
    assert!(!report.passed());
    assert!(report.books.audit.unwrap().repeated > 0);
    let report = report_of(Fault::CountsRepeats, Comparison::Totals, 10).await;
    assert!(report.books.audit.unwrap().wrong_users > 0);
}

#[tokio::test]
async fn an_event_that_is_counted_for_more_than_it_was_is_noticed() {
    let report = report_of(Fault::Inflates, Comparison::History, 1).await;
    assert_eq!(report.books.audit.as_ref().unwrap().foreign, 5);
    assert!(report.text().contains("NOT BALANCED"));
}
