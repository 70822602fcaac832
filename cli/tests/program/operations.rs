//! What operators see: metrics, health, books, dead letters.

use std::time::{Duration, Instant};

use crate::server::{Installation, eventually, text};
use crate::tour::{call, register, wait_for_tokens};

#[test]
fn metrics_have_every_promised_family_with_help_and_type() {
    let installation = Installation::new();
    let server = installation.start();
    let ada = register(&server, "ada@example.org");
    ada.post("/api/tokens/me/track", &call("a", 800, 90)).expect(201);
    ada.post("/api/tokens/me/track", &call("b", 800, 200_000)).expect(429);
    wait_for_tokens(&ada, 890);
    assert!(installation.run(&["reconcile"]).status.success());
    let metrics = server.ops.get("/metrics").text;
    for family in [
        "tokenmeter_events_total",
        "tokenmeter_http_requests_total",
        "tokenmeter_http_request_seconds",
        "tokenmeter_track_events_total",
        "tokenmeter_track_seconds",
        "tokenmeter_records_waiting",
        "tokenmeter_oldest_waiting_seconds",
        "tokenmeter_flush_records",
        "tokenmeter_flush_seconds",
        "tokenmeter_book_difference",
        "tokenmeter_refusals_total",
        "tokenmeter_store_errors_total",
        "tokenmeter_build_info",
    ] {
        assert!(metrics.contains(&format!("# HELP {family} ")), "{family}\n{metrics}");
        assert!(metrics.contains(&format!("# TYPE {family} ")), "{family}\n{metrics}");
    }
    let families = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for family in families.filter_map(|line| line.split(' ').next()) {
        assert!(metrics.contains(&format!("# HELP {family} ")), "{family} has no help text");
    }
    // Not on the public listener.
    assert_eq!(server.http.get("/metrics").status, 404);
}

#[test]
fn counting_commits_no_more_often_than_it_was_asked_to() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let installation = Installation::new();
    let server = installation.start_with(&["--flush-interval", "2s"]);
    let ada = register(&server, "ada@example.org");
    let (started, mut tracked) = (Instant::now(), 0);
    while started.elapsed() < INTERVAL * 2 {
        ada.post("/api/tokens/me/track", &call(&format!("call-{tracked}"), 1, 0)).expect(201);
        tracked += 1;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    wait_for_tokens(&ada, tracked);
    let metrics = server.ops.get("/metrics").text;
    let of = |line: &str| line.strip_prefix("tokenmeter_flush_records_count ")?.parse::<u32>().ok();
    let flushes = metrics.lines().find_map(of).unwrap();
    // The first one does not wait, and the last one may be due at any time.
    let beats = started.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
    assert!(f64::from(flushes) <= beats + 2.0, "{flushes} commits in {beats} intervals");
}

#[test]
fn sigterm_lets_a_request_end_and_exits_with_0() {
    let installation = Installation::new();
    let server = installation.start();
    let ada = register(&server, "ada@example.org");
    let tracking = std::thread::spawn({
        let ada = ada.clone();
        move || {
            // Until it is refused a connection: whatever was answered 201 is kept.
            let ids = (0..).map(|number| format!("call-{number}"));
            let answers = ids.map_while(|id| {
                let answer = ada.try_call("POST", "/api/tokens/me/track", Some(&call(&id, 1, 0)));
                answer.ok().filter(|answer| answer.status != 503)
            });
            answers.filter(|answer| answer.status == 201).count()
        }
    });
    eventually("some events are counted", || {
        let month = ada.get("/api/tokens/me").expect(200);
        (month["current_period"]["tokens_used"].as_u64().unwrap() >= 5).then_some(())
    });
    assert_eq!(server.terminate().code(), Some(0));
    let acknowledged = tracking.join().unwrap();
    assert!(!installation.data_dir().join("server.json").exists());

    let server = installation.start();
    let ada = ada.at(&server.http.url);
    let used = ada.get("/api/usage/me").expect(200)["tokens"]["used"].as_u64().unwrap();
    assert!(used >= u64::try_from(acknowledged).unwrap(), "{used} {acknowledged}");
}

#[test]
fn books_balance_with_a_server_and_without() {
    let installation = Installation::new();
    assert_eq!(
        installation.run(&["reconcile"]).status.code(),
        Some(1),
        "there is nothing to compare"
    );
    let server = installation.start();
    let ada = register(&server, "ada@example.org");
    ada.post("/api/tokens/me/track", &call("a", 800, 90)).expect(201);
    wait_for_tokens(&ada, 890);
    let books = installation.json(&["reconcile"]);
    let statuses: Vec<_> = books["books"]
        .as_array()
        .unwrap()
        .iter()
        .map(|book| {
            format!("{} {}", book["name"].as_str().unwrap(), book["status"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        statuses,
        ["R1 balanced", "R2 balanced", "R3 balanced", "R4 balanced", "R5 balanced"]
    );
    server.terminate();
    let books = installation.json(&["reconcile", "--repair"]);
    assert_eq!(books["books"][4]["status"], "not applicable");
    assert!(text(&installation.run(&["dead-letters", "list"]).stdout).contains("reason"));
}
