//! Single events of several clients on their way together.

use std::sync::Arc;

use futures::future::join_all;
use ingest::LookUp;
use metering::quota::{QuotaCounter, Totals};
use metering::time::{Clock, Period};
use serde_json::{Value, json};

use crate::house::{Answer, House, OWN, User, chat, with};
use crate::watched::Watched;

async fn watched() -> (House, Arc<Watched>) {
    Watched::in_a_house(LookUp::BeforeRefusal).await
}

/// A user whom the counter knows.
async fn known(house: &House, log: &Watched, plan: &str) -> User {
    let user = house.user(plan).await;
    house.post(OWN, &user.token, &chat(1)).await.expect(201);
    assert_eq!(log.sizes(), [1], "who is not known goes alone");
    user
}

async fn all_at_once(house: &House, events: &[(&User, Value)]) -> Vec<Answer> {
    join_all(events.iter().map(|(user, event)| house.post(OWN, &user.token, event))).await
}

async fn used(house: &House, user: &User) -> Totals {
    let period = Period::of(house.clock.now());
    house.stores.counter.usage(user.id, period).await.unwrap().unwrap().used
}

fn named(name: &str) -> Value {
    with(chat(2), json!({"event_id": name}))
}

#[tokio::test]
async fn events_of_many_clients_are_one_append_and_each_has_its_own_answer() {
    let (house, log) = watched().await;
    let users = [known(&house, &log, "free").await, known(&house, &log, "free").await];
    let events: Vec<_> =
        (0..30).map(|number| (&users[number % 2], named(&format!("e{number}")))).collect();
    let answers = all_at_once(&house, &events).await;
    assert_eq!(log.sizes(), [30]);
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect(201);
        assert_eq!(answer.body["event_id"], format!("e{number}"));
        assert!(answer.body.get("duplicate").is_none());
    }
    house.stores.count().await;
    for user in &users {
        assert_eq!(used(&house, user).await, Totals { tokens: 31, requests: [16, 0, 0] });
    }
}

#[tokio::test]
async fn who_is_refused_or_repeats_or_is_not_known_holds_up_nobody() {
    let (house, log) = watched().await;
    let good = known(&house, &log, "free").await;
    let events = [
        (&good, named("first")),
        (&house.user("free").await, named("of a new user")),
        (&good, with(chat(2), json!({"event_id": "x", "model": "none"}))),
        (&good, chat(1_000_000)),
        (&good, named("first")),
    ];
    let answers = all_at_once(&house, &events).await;
    let told: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(told, [201, 201, 422, 429, 200]);
    assert_eq!(answers[4].body["duplicate"], true);
    // The repeat is published again, for the first may have failed.
    assert_eq!(log.sizes(), [1, 1, 1]);
}

#[tokio::test]
async fn a_partition_that_fails_fails_its_own_events_alone() {
    let (house, log) = watched().await;
    let users = [known(&house, &log, "free").await, known(&house, &log, "free").await];
    log.fails_for(Some(users[1].id));
    let events = [
        (&users[0], named("a")),
        (&users[1], named("b")),
        (&users[1], chat(5)),
        (&users[0], named("c")),
    ];
    let answers = all_at_once(&house, &events).await;
    assert_eq!(log.sizes(), [2, 2]);
    let told: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(told, [201, 503, 503, 201]);
    assert_eq!(answers[1].refused(), (503, "unavailable"));
    let made = answers[2].body["event_id"].as_str().unwrap();

    log.fails_for(None);
    let again = house.post(OWN, &users[1].token, &named("b")).await.expect(200);
    assert_eq!(again.body["duplicate"], true);
    let retry = with(chat(5), json!({"event_id": made}));
    house.post(OWN, &users[1].token, &retry).await.expect(200);
    house.stores.count().await;
    assert_eq!(used(&house, &users[1]).await, Totals { tokens: 8, requests: [3, 0, 0] });
}

#[tokio::test]
async fn a_trace_is_that_of_its_own_event() {
    let (house, log) = watched().await;
    let user = known(&house, &log, "free").await;
    let traces = ["a", "b"]
        .map(|last| format!("00-4bf92f3577b34da6a3ce929d0e0e473{last}-00f067aa0ba902b7-01"));
    let headers = [
        vec![("traceparent", traces[0].as_str())],
        vec![],
        vec![("traceparent", traces[1].as_str())],
        vec![],
    ];
    let send = |headers| house.send(OWN, &user.token, headers, chat(1).to_string());
    for answer in join_all(headers.iter().map(|headers| send(headers))).await {
        answer.expect(201);
    }
    let [a, b] = traces;
    assert_eq!(log.appends(), [(1, Some(a)), (1, Some(b)), (2, None)]);
}
