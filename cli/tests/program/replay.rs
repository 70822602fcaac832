//! A trace over HTTP: exact sums, and a second run that changes none.

use serde_json::Value;

use crate::http::Http;
use crate::server::{Installation, eventually};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/small-trace.csv");

/// Rows, prompt and completion tokens of the trace, read without the program.
fn sums() -> (u64, u64, u64) {
    let content = std::fs::read_to_string(TRACE).unwrap();
    let rows = content.lines().skip(1).map(|line| {
        let mut fields = line.trim_end().split(',').skip(1).map(|field| field.parse::<u64>());
        (fields.next().unwrap().unwrap(), fields.next().unwrap().unwrap())
    });
    rows.fold((0, 0, 0), |(rows, prompt, completion), (p, c)| {
        (rows + 1, prompt + p, completion + c)
    })
}

/// Events, prompt and completion tokens as an admin sees them.
fn totals(admin: &Http) -> (u64, u64, u64) {
    let usage = admin.get("/api/tokens/admin/usage").expect(200);
    let total = |name: &str| usage["totals"][name].as_u64().unwrap();
    (total("events"), total("prompt_tokens"), total("completion_tokens"))
}

/// What all users' months add up to.
fn tokens_of_all_users(admin: &Http) -> u64 {
    let users = admin.get("/api/users?limit=200").expect(200);
    let ids = users["data"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap());
    ids.map(|id| {
        let this = admin.get(&format!("/api/users/{id}/tokens")).expect(200);
        let used = |month: &Value| month["current_period"]["tokens_used"].as_u64().unwrap();
        // Moved to end now, the trace may have begun in the month before.
        let start = this["current_period"]["start_date"].as_str().unwrap();
        let (year, month): (u32, u32) = (start[..4].parse().unwrap(), start[5..7].parse().unwrap());
        let (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
        let path = format!("/api/users/{id}/tokens?period={year:04}-{month:02}");
        used(&this) + used(&admin.get(&path).expect(200))
    })
    .sum()
}

#[test]
fn a_replayed_trace_has_exact_sums_and_again_is_all_duplicates() {
    let installation = Installation::new();
    let server = installation.start();
    let admin = server.http.with_bearer(&installation.key("admin"));
    let (rows, prompt, completion) = sums();

    let first = installation.json(&["replay", TRACE, "--users", "7", "--batch", "50"]);
    assert_eq!(first["accepted"], rows);
    assert_eq!(first["prompt_tokens"], prompt);
    eventually("all rows are counted", || {
        (totals(&admin) == (rows, prompt, completion)).then_some(())
    });
    assert_eq!(tokens_of_all_users(&admin), prompt + completion);

    // A copy under another name, sent one by one, and with other times: still the same events.
    let copy = installation.path().join("copy.csv");
    std::fs::copy(TRACE, &copy).unwrap();
    let copy = copy.to_str().unwrap();
    let again = installation.json(&["replay", copy, "--users", "7", "--batch", "1"]);
    assert_eq!(again["duplicates"], rows);
    assert_eq!(again["accepted"], 0);
    let again = installation.json(&["replay", TRACE, "--users", "7", "--keep-times"]);
    assert_eq!(again["duplicates"], rows);
    assert_eq!(totals(&admin), (rows, prompt, completion));
    assert_eq!(tokens_of_all_users(&admin), prompt + completion);
    let books = installation.json(&["reconcile"]);
    assert_eq!(books["balanced"], true);
    assert_eq!(books["books"].as_array().unwrap().len(), 5);

    // The key it made for itself is of no use any more.
    let keys = installation.json(&["key", "list"]);
    let temporary = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["name"].as_str().unwrap().starts_with("replay"));
    assert!(
        temporary.clone().count() == 3
            && temporary.clone().all(|key| key["revoked_at"] != Value::Null)
    );
}

#[test]
fn a_trace_that_cannot_be_read_is_refused_before_anything_is_sent() {
    let installation = Installation::new();
    let _server = installation.start();
    let file = installation.path().join("bad.csv");
    std::fs::write(
        &file,
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2026-01-01 00:00:00.0000000,1,x",
    )
    .unwrap();
    let refused = installation.run(&["replay", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let said = crate::server::text(&refused.stderr);
    assert!(said.contains("bad.csv") && said.contains("line 2, GeneratedTokens"), "{said}");
    assert_eq!(installation.json(&["user", "list"])["users"].as_array().unwrap().len(), 0);
}
