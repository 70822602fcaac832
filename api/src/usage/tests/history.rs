use metering::accounts::{Role, Scope};
use metering::usage::{Metadata, ModelName, RequestType, UsageEvent};
use serde_json::{Value, json};

use super::{World, event, tokens};
use crate::cursor;

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|row| row["event_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_row_shows_all_of_an_event() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    let full = UsageEvent {
        tokens: tokens(100, 50),
        request_type: RequestType::PromptGeneration,
        metadata: Some(Metadata::from_stored(r#"{"note":"a, \"b\"","n":1.50}"#)),
        ..event(id, "over, \"quoted\"", "2026-11-20T10:00:00.123Z")
    };
    world.count(vec![full, event(id, "plain", "2026-11-20T11:00:00Z")]).await;
    let page = world.get("/api/tokens/me/history", &token).await.json();
    assert_eq!((&page["has_more"], &page["next_cursor"]), (&json!(false), &json!(null)));
    assert_eq!(ids(&page), ["plain", "over, \"quoted\""], "newest first");
    let expected = json!({
        "event_id": "over, \"quoted\"", "request_type": "prompt_generation",
        "model": "gpt-4o-mini", "prompt_tokens": 100, "completion_tokens": 50,
        "cached_tokens": 50, "reasoning_tokens": 25, "total_tokens": 150,
        "occurred_at": "2026-11-20T10:00:00.123Z", "received_at": "2026-11-20T10:00:01.123Z",
        "flags": ["over_limit"], "metadata": {"note": "a, \"b\"", "n": 1.5},
    });
    assert_eq!(page["data"][1], expected);
    assert_eq!(page["data"][0]["metadata"], json!(null));
    assert_eq!(page["data"][0]["flags"], json!([]));

    let csv = world.get_csv("/api/tokens/me/history", &token).await.csv();
    let columns: Vec<_> = expected.as_object().unwrap().keys().map(String::as_str).collect();
    let mut header: Vec<_> = csv[0].iter().map(String::as_str).collect();
    header.sort_unstable();
    assert_eq!(header, columns, "the same columns");
    assert_eq!(csv[2][0], "over, \"quoted\"");
    assert_eq!(csv[2][8], "2026-11-20T10:00:00.123Z");
    assert_eq!(csv[2][10], "over_limit");
    assert_eq!(csv[2][11], r#"{"note":"a, \"b\"","n":1.50}"#);
    assert_eq!(csv[1][10..], ["", ""]);
}

#[tokio::test]
async fn pages_show_each_event_once_though_new_ones_come() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    // Three at each instant: the place in the log breaks ties.
    let all: Vec<_> = (0..21)
        .map(|n| event(id, &format!("e{n:02}"), &format!("2026-11-20T10:{:02}:00Z", n / 3)))
        .collect();
    let mut expected: Vec<_> = all.iter().map(|e| e.event_id.as_str().to_owned()).collect();
    expected.reverse();
    world.count(all).await;
    let mut seen = Vec::new();
    let mut path = "/api/tokens/me/history?limit=4".to_owned();
    loop {
        let page = world.get(&path, &token).await.json();
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        assert_eq!(page["has_more"], page["next_cursor"].is_string());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/tokens/me/history?limit=4&cursor={cursor}");
        let newer = format!("new-{}", seen.len());
        world.count(vec![event(id, &newer, "2026-11-21T00:00:00Z")]).await;
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn filters_narrow_the_rows() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    let other_model = ModelName::new("gpt-3.5-turbo");
    world
        .count(vec![
            event(id, "first", "2026-11-10T00:00:00Z"),
            UsageEvent { model: other_model, ..event(id, "model", "2026-11-11T00:00:00Z") },
            UsageEvent {
                request_type: RequestType::Plagiarism,
                ..event(id, "type", "2026-11-12T00:00:00Z")
            },
            event(id, "last", "2026-11-13T00:00:00Z"),
        ])
        .await;
    for (query, expected) in [
        ("from=2026-11-11&to=2026-11-13", vec!["type", "model"]),
        ("from=2026-11-13T00:00:00.000Z", vec!["last"]),
        ("to=2026-11-10T00:00:00.001Z", vec!["first"]),
        ("to=2026-11-10T01:00:00%2B01:00", vec![]),
        ("model=gpt-3.5-turbo", vec!["model"]),
        ("model=gpt-2", vec![]),
        ("request_type=plagiarism", vec!["type"]),
        ("request_type=chat&model=gpt-4o-mini", vec!["last", "first"]),
    ] {
        let page = world.get(&format!("/api/tokens/me/history?{query}"), &token).await.json();
        assert_eq!(ids(&page), expected, "{query}");
        let csv = world.get_csv(&format!("/api/tokens/me/history?{query}"), &token).await.csv();
        let rows: Vec<_> = csv[1..].iter().map(|row| row[0].as_str()).collect();
        assert_eq!(rows, expected, "{query}");
    }
}

#[tokio::test]
async fn a_cursor_is_bound_to_its_filters_and_its_user() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    let (other, _) = world.user("free", Role::User).await;
    let of = |id, n: u8| event(id, &format!("e{n}"), "2026-11-20T10:00:00Z");
    world.count(vec![of(id, 0), of(id, 1), of(id, 2), of(other, 3)]).await;
    let page = world.get("/api/tokens/me/history?limit=2&model=gpt-4o-mini", &token).await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = |query: &str| format!("/api/tokens/me/history?cursor={cursor}{query}");
    let good = world.get(&next("&model=gpt-4o-mini&limit=7"), &token).await.json();
    assert_eq!(ids(&good), ["e0"], "the limit may change");
    for query in ["", "&model=gpt-4", "&model=gpt-4o-mini&from=2026-11-01"] {
        assert_eq!(world.get(&next(query), &token).await.bad_parameter(), "cursor", "{query}");
    }
    let reader = world.key(Scope::UsageRead).await;
    let theirs = format!("/api/users/{other}/tokens/history?cursor={cursor}&model=gpt-4o-mini");
    assert_eq!(world.get(&theirs, &reader).await.bad_parameter(), "cursor");
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    let beyond = {
        let filters = json!({"list": "history", "user_id": id, "from": null, "to": null,
                             "model": null, "request_type": null});
        cursor::encode(&(0_i64, u64::MAX), &filters).unwrap()
    };
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=-1", "limit"),
        ("cursor=", "cursor"),
        ("cursor=nonsense", "cursor"),
        (&format!("cursor={beyond}"), "cursor"),
        ("from=yesterday", "from"),
        ("to=2026-11-31", "to"),
        ("from=2026-11-02&to=2026-11-02", "to"),
        ("request_type=song", "request_type"),
        ("model=%00", "model"),
    ] {
        let reply = world.get(&format!("/api/tokens/me/history?{query}"), &token).await;
        assert_eq!(reply.bad_parameter(), parameter, "{query}");
    }
}

#[tokio::test]
async fn csv_has_all_rows_whatever_the_limit_and_the_cursor() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    let all = (0..2500).map(|n| event(id, &format!("e{n:04}"), "2026-11-20T10:00:00Z"));
    world.count(all.collect()).await;
    let reply = world.get_csv("/api/tokens/me/history?limit=2&cursor=x", &token).await;
    let rows = reply.csv();
    assert_eq!(rows.len(), 2501);
    let seen: Vec<_> = rows[1..].iter().map(|row| row[0].clone()).collect();
    let expected: Vec<_> = (0..2500).rev().map(|n| format!("e{n:04}")).collect();
    assert_eq!(seen, expected);
    assert!(reply.body.ends_with("\r\n"));
}
