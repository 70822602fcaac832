use metering::accounts::{Role, Scope, UserId};
use metering::usage::{ModelName, RequestType, UsageEvent};
use serde_json::{Value, json};

use super::{World, event, tokens};

const USAGE: &str = "/api/tokens/admin/usage";

/// Two users over two months, and a key that reads.
async fn world() -> (World, UserId, UserId, String) {
    let world = World::new().await;
    let mut users =
        [world.user("free", Role::User).await.0, world.user("free", Role::User).await.0];
    // Answers show them in the order of their ids.
    users.sort_unstable();
    let [ada, bob] = users;
    let reader = world.key(Scope::UsageRead).await;
    let turbo = || ModelName::new("gpt-3.5-turbo");
    world
        .count(vec![
            UsageEvent { tokens: tokens(100, 10), ..event(ada, "1", "2026-10-15T08:00:00Z") },
            UsageEvent { tokens: tokens(200, 20), ..event(ada, "2", "2026-11-20T08:59:00Z") },
            UsageEvent {
                tokens: tokens(300, 30),
                model: turbo(),
                ..event(ada, "3", "2026-11-20T09:00:00Z")
            },
            UsageEvent {
                tokens: tokens(400, 40),
                request_type: RequestType::Plagiarism,
                ..event(bob, "4", "2026-11-21T10:00:00Z")
            },
            UsageEvent {
                tokens: tokens(500, 50),
                model: turbo(),
                ..event(bob, "5", "2026-11-22T11:59:59Z")
            },
        ])
        .await;
    (world, ada, bob, reader)
}

fn sums(events: u64, prompt: u64, completion: u64) -> Value {
    json!({"events": events, "prompt_tokens": prompt, "completion_tokens": completion,
           "total_tokens": prompt + completion})
}

fn with(sums: Value, members: Value) -> Value {
    let Value::Object(mut object) = members else { unreachable!("members are an object") };
    object.extend(sums.as_object().unwrap().clone());
    Value::Object(object)
}

#[tokio::test]
async fn without_parameters_it_is_the_last_30_days_by_day() {
    let (world, ada, bob, reader) = world().await;
    let usage = world.get(USAGE, &reader).await.json();
    let bucket = |start, sums| with(sums, json!({ "start": start }));
    let expected = json!({
        "success": true,
        "from": "2026-10-23T00:00:00.000Z", "to": "2026-11-22T12:05:00.000Z",
        "totals": sums(4, 1400, 140),
        "previous": sums(1, 100, 10),
        "series": [
            bucket("2026-11-20T00:00:00.000Z", sums(2, 500, 50)),
            bucket("2026-11-21T00:00:00.000Z", sums(1, 400, 40)),
            bucket("2026-11-22T00:00:00.000Z", sums(1, 500, 50)),
        ],
        "top_users": [
            {"user_id": bob, "total_tokens": 990}, {"user_id": ada, "total_tokens": 550},
        ],
    });
    assert_eq!(usage, expected);
}

#[tokio::test]
async fn the_default_span_has_all_events_there_can_be_and_whole_hours_before_it() {
    let world = World::new().await;
    let (id, _) = world.user("free", Role::User).await;
    let reader = world.key(Scope::UsageRead).await;
    // It is 12:00; the span is 30 days, 12 hours and 5 minutes long.
    world
        .count(vec![
            event(id, "too old", "2026-09-22T10:59:59.999Z"),
            event(id, "before", "2026-09-22T11:00:00Z"),
            event(id, "first", "2026-10-23T00:00:00Z"),
            event(id, "ahead", "2026-11-22T12:05:00Z"),
        ])
        .await;
    let usage = world.get(USAGE, &reader).await.json();
    assert_eq!((&usage["totals"]["events"], &usage["previous"]["events"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn buckets_are_as_wide_as_asked() {
    let (world, _, _, reader) = world().await;
    let starts = async |query: &str| {
        let usage = world.get(&format!("{USAGE}?from=2026-10-01&{query}"), &reader).await.json();
        let series = usage["series"].as_array().unwrap().clone();
        series
            .into_iter()
            .map(|row| (row["start"].clone(), row["events"].clone()))
            .collect::<Vec<_>>()
    };
    let of = |rows: &[(&str, u64)]| -> Vec<(Value, Value)> {
        rows.iter().map(|(start, events)| (json!(start), json!(events))).collect()
    };
    let months = of(&[("2026-10-01T00:00:00.000Z", 1), ("2026-11-01T00:00:00.000Z", 4)]);
    assert_eq!(starts("granularity=month").await, months);
    let hours = of(&[
        ("2026-10-15T08:00:00.000Z", 1),
        ("2026-11-20T08:00:00.000Z", 1),
        ("2026-11-20T09:00:00.000Z", 1),
        ("2026-11-21T10:00:00.000Z", 1),
        ("2026-11-22T11:00:00.000Z", 1),
    ]);
    assert_eq!(starts("granularity=hour").await, hours);
}

#[tokio::test]
async fn groups_stand_beside_their_sums() {
    let (world, ada, bob, reader) = world().await;
    let path = format!("{USAGE}?granularity=month&group_by=user_id,model,user_id&top=1");
    let usage = world.get(&path, &reader).await.json();
    let start = "2026-11-01T00:00:00.000Z";
    let row = |model, user: UserId, sums| {
        with(sums, json!({"start": start, "model": model, "user_id": user}))
    };
    let expected = json!([
        row("gpt-3.5-turbo", ada, sums(1, 300, 30)),
        row("gpt-3.5-turbo", bob, sums(1, 500, 50)),
        row("gpt-4o-mini", ada, sums(1, 200, 20)),
        row("gpt-4o-mini", bob, sums(1, 400, 40)),
    ]);
    assert_eq!(usage["series"], expected);
    assert_eq!(usage["top_users"], json!([{"user_id": bob, "total_tokens": 990}]));
    let path = format!("{USAGE}?granularity=month&group_by=plan,request_type&top=0");
    let usage = world.get(&path, &reader).await.json();
    let row =
        |kind, sums| with(sums, json!({"start": start, "request_type": kind, "plan": "free"}));
    let expected = json!([row("chat", sums(3, 1000, 100)), row("plagiarism", sums(1, 400, 40))]);
    assert_eq!((&usage["series"], &usage["top_users"]), (&expected, &json!([])));
}

#[tokio::test]
async fn filters_narrow_every_figure() {
    let (world, ada, bob, reader) = world().await;
    for (query, events, previous, top) in [
        (format!("user_id={ada}"), 2, 1, json!([{"user_id": ada, "total_tokens": 550}])),
        (
            "model=gpt-3.5-turbo&request_type=chat".to_owned(),
            2,
            0,
            json!([
                {"user_id": bob, "total_tokens": 550}, {"user_id": ada, "total_tokens": 330},
            ]),
        ),
        ("plan=basic".to_owned(), 0, 0, json!([])),
        (
            "plan=free&request_type=plagiarism".to_owned(),
            1,
            0,
            json!([
                {"user_id": bob, "total_tokens": 440},
            ]),
        ),
    ] {
        let usage = world.get(&format!("{USAGE}?{query}"), &reader).await.json();
        assert_eq!(usage["totals"]["events"], events, "{query}");
        assert_eq!(usage["previous"]["events"], previous, "{query}");
        assert_eq!(usage["top_users"], top, "{query}");
        let in_series = usage["series"].as_array().unwrap().iter();
        let sum: u64 = in_series.map(|row| row["events"].as_u64().unwrap()).sum();
        assert_eq!(sum, events, "{query}");
    }
}

#[tokio::test]
async fn a_span_is_half_open_to_the_millisecond() {
    let (world, _, _, reader) = world().await;
    for (from, to, events) in [
        ("2026-11-20T08:59:00Z", "2026-11-20T09:00:00Z", 1),
        ("2026-11-20T08:59:00.001Z", "2026-11-20T09:00:00.001Z", 1),
        ("2026-11-20", "2026-11-22", 3),
        ("2026-11-23", "2027-01-01", 0),
    ] {
        let usage = world.get(&format!("{USAGE}?from={from}&to={to}"), &reader).await.json();
        assert_eq!(usage["totals"]["events"], events, "{from} {to}");
    }
    let usage = world.get(&format!("{USAGE}?to=2026-11-21"), &reader).await.json();
    assert_eq!(usage["from"], "2026-10-22T00:00:00.000Z");
    assert_eq!(usage["totals"]["events"], 2);
}

#[tokio::test]
async fn the_series_is_there_as_csv() {
    let (world, ada, bob, reader) = world().await;
    let path = format!("{USAGE}?granularity=month&group_by=user_id,request_type");
    let csv = world.get_csv(&path, &reader).await.csv();
    let start = "2026-11-01T00:00:00.000Z";
    let (ada, bob) = (ada.to_string(), bob.to_string());
    assert_eq!(
        csv,
        [
            [
                "start",
                "request_type",
                "user_id",
                "events",
                "prompt_tokens",
                "completion_tokens",
                "total_tokens"
            ],
            [start, "chat", &ada, "2", "500", "50", "550"],
            [start, "chat", &bob, "1", "500", "50", "550"],
            [start, "plagiarism", &bob, "1", "400", "40", "440"],
        ]
    );
    let plain = world.get_csv(USAGE, &reader).await.csv();
    assert_eq!(plain[0], ["start", "events", "prompt_tokens", "completion_tokens", "total_tokens"]);
    assert_eq!(plain.len(), 4);
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let (world, ada, _, reader) = world().await;
    for (query, parameter) in [
        ("from=x".to_owned(), "from"),
        ("to=2026-13-01".to_owned(), "to"),
        ("from=2026-11-02&to=2026-11-01".to_owned(), "to"),
        ("from=2027-01-01".to_owned(), "to"),
        ("granularity=week".to_owned(), "granularity"),
        ("group_by=model,colour".to_owned(), "group_by"),
        ("granularity=hour&group_by=user_id".to_owned(), "group_by"),
        (format!("granularity=hour&user_id={ada}"), "user_id"),
        ("user_id=ada".to_owned(), "user_id"),
        ("request_type=song".to_owned(), "request_type"),
        ("top=101".to_owned(), "top"),
        ("top=many".to_owned(), "top"),
    ] {
        let reply = world.get(&format!("{USAGE}?{query}"), &reader).await;
        assert_eq!(reply.bad_parameter(), parameter, "{query}");
    }
}
