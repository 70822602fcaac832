//! What must hold after every scenario.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::cluster::{Cluster, PARTITIONS, Serving};
use crate::load::{
    ALERTS_OF_FREE, Load, LoadUser, Outcome, REQUESTS_OF_FREE, TOKENS_OF_FREE, Told,
};
use crate::stores;
use crate::waiting::eventually;

/// An event as the ledger has it.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) id: String,
    pub(crate) tokens: u64,
    /// `2026-11`.
    pub(crate) month: String,
}

/// Ends the load, waits until everything is counted, and checks all that is promised. Answers what
/// the clients know.
#[track_caller]
pub(crate) fn settle(cluster: &Cluster, serving: &Serving, load: Load) -> Outcome {
    let outcome = load.finish();
    answers(serving, &outcome.users);
    drained(cluster);
    // A partition that is being opened anew has no books yet.
    serving.is_ready();
    books_balance(cluster);
    let counted = counted(cluster);
    agrees(&outcome, &counted);
    shown(serving, &outcome.users, &counted);
    alerted(cluster, &outcome.users, &counted);
    outcome
}

/// Without it a run shows nothing about limits.
pub(crate) fn limits_were_reached(outcome: &Outcome) -> bool {
    outcome.told.values().any(|(_, told)| *told == Told::Refused)
}

/// The service is back by itself: through every ingest, events of users of all partitions are
/// recorded.
#[track_caller]
pub(crate) fn answers(serving: &Serving, users: &[LoadUser]) {
    for (place, ingest) in serving.ingests.iter().enumerate() {
        for user in users.iter().filter(|user| !user.is_limited) {
            let body = json!({
                "user_id": user.id, "event_id": format!("afterwards-{place}"), "request_type": "chat",
                "model": "gpt-3.5-turbo", "prompt_tokens": 0, "completion_tokens": 0,
            });
            eventually("a new event is recorded", || {
                let answer = ingest.http.try_call("POST", "/api/tokens/track", Some(&body)).ok()?;
                [200, 201].contains(&answer.status).then_some(())
            });
        }
    }
}

/// Waits until everything is counted that is in the log now.
#[track_caller]
pub(crate) fn drained(cluster: &Cluster) {
    let ends = stores::kafka_ends(&cluster.kafka_brokers, &cluster.topic, PARTITIONS);
    // The high bits are the log's generation.
    let cursors = "SELECT position - (SELECT max(number)::bigint << 48 FROM log_generations)
                   FROM cursors ORDER BY log_partition";
    eventually("the log is counted", || {
        let cursors = stores::postgres_numbers(&cluster.postgres_url, cursors);
        let cursors: Vec<i64> = cursors.into_iter().flatten().collect();
        assert_eq!(cursors.len(), ends.len());
        cursors.iter().zip(&ends).all(|(cursor, end)| cursor >= end).then_some(())
    });
}

/// R1 to R5.
#[track_caller]
pub(crate) fn books_balance(cluster: &Cluster) {
    let books = cluster.json(&["reconcile"]);
    assert_eq!(books["balanced"], true, "{books}");
    assert_eq!(books["books"].as_array().unwrap().len(), 5);
}

/// The dead letters of that reason.
#[track_caller]
pub(crate) fn letters(cluster: &Cluster, reason: &str) -> Vec<Value> {
    let listed = cluster.json(&["dead-letters", "list"]);
    let listed = listed["dead_letters"].as_array().unwrap();
    listed.iter().filter(|letter| letter["reason"] == reason).cloned().collect()
}

/// The events of each user as the ledger has them, by id. Fails when one is there twice.
#[track_caller]
pub(crate) fn counted(cluster: &Cluster) -> HashMap<String, HashMap<String, Counted>> {
    let rows = stores::clickhouse(
        &cluster.clickhouse_url,
        "SELECT user_id, event_id, prompt_tokens + completion_tokens AS tokens,
                formatDateTime(occurred_at, '%Y-%m') AS month
         FROM token_usage FINAL FORMAT JSONEachRow",
    );
    let mut users: HashMap<String, HashMap<String, Counted>> = HashMap::new();
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let tokens = match &row["tokens"] {
            Value::String(number) => number.parse().unwrap(),
            number => number.as_u64().unwrap(),
        };
        let event = Counted { id: text("event_id"), tokens, month: text("month") };
        let twice = users.entry(text("user_id")).or_default().insert(text("event_id"), event);
        assert!(twice.is_none(), "counted twice: {twice:?}");
    }
    users
}

/// R6: acknowledged ⊆ counted ⊆ sent, what was refused is not counted, and no limit is passed.
#[track_caller]
fn agrees(outcome: &Outcome, counted: &HashMap<String, HashMap<String, Counted>>) {
    let nothing = HashMap::new();
    for (place, user) in outcome.users.iter().enumerate() {
        let events = counted.get(&user.id).unwrap_or(&nothing);
        let mut months: HashMap<&str, (u64, u64)> = HashMap::new();
        for event in events.values().filter(|event| !event.id.starts_with("afterwards-")) {
            let (sent, told) =
                outcome.told.get(&event.id).unwrap_or_else(|| panic!("never sent: {event:?}"));
            assert_eq!((sent.user, sent.tokens), (place, event.tokens), "{event:?}");
            assert_eq!(*told, Told::Acknowledged, "refused, and counted: {event:?}");
            let month = months.entry(&event.month).or_default();
            *month = (month.0 + event.tokens, month.1 + 1);
        }
        for (tokens, requests) in months.values().filter(|_| user.is_limited) {
            let held = *tokens <= TOKENS_OF_FREE && *requests <= REQUESTS_OF_FREE;
            assert!(held, "{user:?} used {tokens} tokens in {requests} requests");
        }
        let missing = outcome.told.values().find(|(sent, told)| {
            sent.user == place && *told == Told::Acknowledged && !events.contains_key(&sent.id)
        });
        assert!(missing.is_none(), "acknowledged, and not counted: {missing:?}");
    }
    let refused = outcome.told.values().filter(|(_, told)| *told == Told::Refused).count();
    println!("{} events, {refused} refused, {} retries", outcome.told.len(), outcome.retries);
}

/// What each user is shown is what was counted.
#[track_caller]
pub(crate) fn shown(
    serving: &Serving,
    users: &[LoadUser],
    counted: &HashMap<String, HashMap<String, Counted>>,
) {
    for user in users {
        let this = serving.api.http.get(&format!("/api/users/{}/tokens", user.id)).expect(200);
        let month = &this["current_period"]["start_date"].as_str().unwrap()[..7];
        let events = counted.get(&user.id).into_iter().flat_map(HashMap::values);
        let sum: u64 = events.filter(|event| event.month == month).map(|event| event.tokens).sum();
        assert_eq!(this["current_period"]["tokens_used"], sum, "{user:?} {this}");
    }
}

/// Each part of a limit that users on `free` have reached has raised one alert, and nothing else has.
#[track_caller]
pub(crate) fn alerted(
    cluster: &Cluster,
    users: &[LoadUser],
    counted: &HashMap<String, HashMap<String, Counted>>,
) {
    let mut expected = BTreeSet::new();
    for user in users.iter().filter(|user| user.is_limited) {
        let mut months: HashMap<&str, (u64, u64)> = HashMap::new();
        for event in counted.get(&user.id).into_iter().flat_map(HashMap::values) {
            let month = months.entry(&event.month).or_default();
            *month = (month.0 + event.tokens, month.1 + 1);
        }
        for (month, (tokens, requests)) in months {
            for percent in ALERTS_OF_FREE {
                let mut expect = |meter: &str, used: u64, limit: u64| {
                    if used * 100 >= limit * percent {
                        expected.insert((
                            user.id.clone(),
                            month.to_owned(),
                            meter.to_owned(),
                            percent,
                        ));
                    }
                };
                expect("tokens", tokens, TOKENS_OF_FREE);
                expect("chat_messages", requests, REQUESTS_OF_FREE);
            }
        }
    }
    let listed = cluster.json(&["alerts", "list", "--limit", "100000"]);
    let listed = listed["alerts"].as_array().unwrap();
    let raised = listed.iter().map(|alert| {
        let text = |name: &str| alert[name].as_str().unwrap().to_owned();
        (text("user_id"), text("period"), text("meter"), alert["percent"].as_u64().unwrap())
    });
    let raised: Vec<_> =
        raised.filter(|(id, ..)| users.iter().any(|user| user.id == *id)).collect();
    let once: BTreeSet<_> = raised.iter().cloned().collect();
    assert_eq!(raised.len(), once.len(), "raised twice: {raised:?}");
    assert_eq!(once, expected);
    println!("{} alerts", once.len());
}
