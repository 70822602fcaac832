//! The book R5 on the single node's real stores.

use std::sync::atomic::Ordering;

use crate::rig::{Rig, numbered, until};
use aggregator::Book;
use axum::body::Body;
use axum::http::Request;
use metering::usage::EventLog;
use tower::ServiceExt;

#[tokio::test]
async fn it_balances_while_everything_goes_on() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    let tracking = async {
        for id in numbered("e", 0..400) {
            rig.track(&id).await;
        }
    };
    let comparing = async {
        for _ in 0..20 {
            let book = rig.aggregator.counter_book().await.unwrap();
            assert!(book.balances(), "{book:?}");
        }
    };
    tokio::join!(tracking, comparing);
    let book = rig.aggregator.counter_book().await.unwrap();
    assert!(book.balances() && book.compared > 0, "{book:?}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn totals_that_differ_for_good_are_told() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.track("a").await;
    until("the counter is told", async || rig.counter_user().await.in_flight.is_empty()).await;
    rig.sql("ledger.db", "UPDATE statistics SET tokens = tokens - 20");
    let book = rig.aggregator.counter_book().await.unwrap();
    assert_eq!(book.differences.len(), 1, "{book:?}");
    let difference = &book.differences[0];
    assert_eq!((difference.expected, difference.found), (100, 120));
    assert!(difference.subject.ends_with(": tokens"), "{difference:?}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_record_on_its_way_that_the_counter_does_not_reckon_with_is_told() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.track("a").await;
    until("the counter is told", async || rig.counter_user().await.in_flight.is_empty()).await;
    // Nothing is counted from here on.
    rig.faults.commits_lost.store(u32::MAX, Ordering::SeqCst);
    let reckoned = rig.event("admitted");
    rig.admit(&reckoned).await;
    rig.log.append(vec![reckoned], None).await.unwrap();
    assert!(rig.aggregator.counter_book().await.unwrap().balances());
    rig.append(["not admitted".to_owned()]).await;
    let book = rig.aggregator.counter_book().await.unwrap();
    assert_eq!(book.differences.len(), 1, "{book:?}");
    assert_eq!((book.differences[0].expected, book.differences[0].found), (1, 0));
    running.kill().await;
}

#[tokio::test]
async fn the_operations_listener_serves_it() {
    let rig = Rig::new();
    let asked = async || {
        let request = Request::get("/reconcile/counter").body(Body::empty()).unwrap();
        let routes = aggregator::routes(rig.aggregator.clone());
        let app = edge::app(routes, &[], rig.clock.clone());
        let answer = app.oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice::<serde_json::Value>(&body).unwrap())
    };
    assert_eq!(asked().await.0, 503, "the counter does not serve yet");
    let running = rig.start();
    rig.until_serving().await;
    rig.track("a").await;
    let (status, body) = asked().await;
    assert_eq!((status, &body["success"]), (200, &serde_json::Value::Bool(true)));
    let book: Book = serde_json::from_value(body).unwrap();
    assert_eq!(book.name, "R5");
    assert!(book.balances() && book.compared > 0, "{book:?}");
    running.stop().await.unwrap();
}
