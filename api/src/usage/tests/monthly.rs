use metering::accounts::{Role, Scope};
use metering::usage::{ModelName, RequestType, UsageEvent};
use serde_json::json;

use super::{World, event, tokens};

#[tokio::test]
async fn a_month_adds_up_in_every_direction() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    let (other, _) = world.user("free", Role::User).await;
    world
        .count(vec![
            UsageEvent { tokens: tokens(9000, 1000), ..event(id, "a", "2026-11-01T00:00:00Z") },
            UsageEvent {
                tokens: tokens(3000, 2000),
                model: ModelName::new("gpt-3.5-turbo"),
                ..event(id, "b", "2026-11-01T23:59:59.999Z")
            },
            UsageEvent {
                tokens: tokens(300, 33),
                request_type: RequestType::Plagiarism,
                ..event(id, "c", "2026-11-20T10:00:00Z")
            },
            event(id, "october", "2026-10-31T23:59:59.999Z"),
            event(other, "theirs", "2026-11-20T10:00:00Z"),
        ])
        .await;
    let expected = json!({
        "success": true,
        "current_period": {
            "start_date": "2026-11-01T00:00:00.000Z", "end_date": "2026-11-30T23:59:59.000Z",
            "tokens_used": 15_333, "tokens_limit": 100_000, "percentage_used": 15.33,
        },
        "breakdown": {
            "chat": {"prompt_tokens": 12_000, "completion_tokens": 3000, "total_tokens": 15_000},
            "plagiarism": {"prompt_tokens": 300, "completion_tokens": 33, "total_tokens": 333},
            "prompt_generation": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        },
        "models": {"gpt-3.5-turbo": 5000, "gpt-4o-mini": 10_333},
        "daily_usage": [
            {"date": "2026-11-01", "total_tokens": 15_000},
            {"date": "2026-11-20", "total_tokens": 333},
        ],
        "usage": {
            "used": 15_333, "limit": 100_000, "remaining": 84_667,
            "reset_date": "2026-12-01T00:00:00.000Z",
        },
        "as_of": "2026-11-20T10:00:01.000Z",
    });
    assert_eq!(world.get("/api/tokens/me", &token).await.json(), expected);
    let reader = world.key(Scope::UsageRead).await;
    let of_user = format!("/api/users/{id}/tokens");
    assert_eq!(world.get(&of_user, &reader).await.json(), expected);

    let october = world.get("/api/tokens/me?period=2026-10", &token).await.json();
    assert_eq!(october["current_period"]["tokens_used"], 15);
    assert_eq!(october["current_period"]["end_date"], "2026-10-31T23:59:59.000Z");
    assert_eq!(october["usage"]["reset_date"], "2026-11-01T00:00:00.000Z");
}

#[tokio::test]
async fn nothing_used_is_zero_and_no_limit_is_null() {
    let world = World::new().await;
    let (_, token) = world.user("professional", Role::User).await;
    let month = world.get("/api/tokens/me", &token).await.json();
    assert_eq!(month["usage"]["used"], 0);
    assert_eq!(month["models"], json!({}));
    assert_eq!(month["daily_usage"], json!([]));
    assert_eq!(month["breakdown"]["chat"]["total_tokens"], 0);
    for pointer in [
        "/usage/limit",
        "/usage/remaining",
        "/current_period/tokens_limit",
        "/current_period/percentage_used",
        "/as_of",
    ] {
        assert_eq!(month.pointer(pointer), Some(&json!(null)), "{pointer}");
    }
}

#[tokio::test]
async fn more_than_the_limit_leaves_nothing_and_never_less() {
    let world = World::new().await;
    let (id, token) = world.user("free", Role::User).await;
    let large = UsageEvent { tokens: tokens(150_000, 0), ..event(id, "a", super::NOW) };
    world.count(vec![large]).await;
    let month = world.get("/api/tokens/me", &token).await.json();
    assert_eq!(month["usage"]["remaining"], 0);
    assert_eq!(month["current_period"]["percentage_used"], 150.0);
}

#[tokio::test]
async fn a_period_that_is_no_month_is_refused() {
    let world = World::new().await;
    let (_, token) = world.user("free", Role::User).await;
    for period in ["2026", "2026-13", "october", "2026-10-01", ""] {
        let reply = world.get(&format!("/api/tokens/me?period={period}"), &token).await;
        assert_eq!(reply.bad_parameter(), "period", "{period}");
    }
}
