//! Dead letters through the whole program: two events with one id that passed no door.

use std::sync::Arc;

use edge::SystemClock;
use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::Clock as _;
use metering::usage::{
    AdmittedEvent, EventId, EventLog as _, Flags, IdOrigin, ModelName, RequestType, TokenCounts,
    UsageEvent,
};
use stores::sqlite::SqliteEventLog;

use crate::server::{Installation, eventually};

fn admitted(user: &str, prompt: u32) -> AdmittedEvent {
    let now = SystemClock.now();
    let event = UsageEvent {
        user_id: user.parse::<UserId>().unwrap(),
        event_id: EventId::new("one").unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-3.5-turbo"),
        tokens: TokenCounts { prompt, ..TokenCounts::default() },
        occurred_at: now,
        occurred_at_given: false,
        received_at: now,
        reservation_id: None,
        metadata: None,
    };
    AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        event,
        plan: PlanName::new("free"),
        admitted_at: now,
        flags: Flags::default(),
        over_hold: 0,
    }
}

#[test]
fn a_dead_letter_is_listed_and_in_the_books_and_is_not_replayed_in_vain() {
    let installation = Installation::new();
    let email = ["--email", "a@example.org", "--name", "A"];
    let user = installation.json(&[&["user", "create"] as &[&str], &email].concat());
    installation.json(&["migrate"]);
    let log = installation.data_dir().join("log.db");
    let log = SqliteEventLog::open(&log, Arc::new(SystemClock)).unwrap();
    let id = user["id"].as_str().unwrap();
    let appending = log.append(vec![admitted(id, 1), admitted(id, 2), admitted(id, 1)], None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(appending).unwrap().len(), 3);
    drop(log);

    let server = installation.start();
    let listed = eventually("the dead letter is listed", || {
        let listed = installation.json(&["dead-letters", "list"]);
        (listed["dead_letters"].as_array().unwrap().len() == 1).then_some(listed)
    });
    let letter = &listed["dead_letters"][0];
    assert_eq!(letter["reason"], "event_id_reused");
    assert_eq!((&letter["offset"], &letter["event"]["prompt_tokens"]), (&1.into(), &2.into()));
    assert_eq!(installation.json(&["reconcile"])["balanced"], true);
    // Beside the server, which does it, and without one: the same answer.
    let beside = installation.run(&["dead-letters", "replay", "--json"]);
    assert_eq!(beside.status.code(), Some(1));
    server.terminate();
    let alone = installation.run(&["dead-letters", "replay", "--json"]);
    assert_eq!(alone.status.code(), Some(1));
    for output in [beside, alone] {
        let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&done["event_id_reused"], &done["replayed"]), (&1.into(), &0.into()));
    }
}
