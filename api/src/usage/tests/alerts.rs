use metering::accounts::{Role, Scope, UserId};
use metering::time::Clock as _;
use metering::usage::{AlertId, Alerts as _, Attempt, DeliveryState, UsageEvent};
use serde_json::{Value, json};

use super::{World, event, tokens};

const READ: &str = "/api/alerts";

fn rows(page: &Value) -> &[Value] {
    page["data"].as_array().unwrap()
}

fn percents(page: &Value) -> Vec<u64> {
    let mut percents: Vec<_> =
        rows(page).iter().map(|row| row["percent"].as_u64().unwrap()).collect();
    percents.sort_unstable();
    percents
}

/// The user uses so much of their 100 000 tokens, at that time.
async fn uses(world: &World, user: UserId, id: &str, prompt: u32, at: &str) {
    world.count(vec![UsageEvent { tokens: tokens(prompt, 0), ..event(user, id, at) }]).await;
}

#[tokio::test]
async fn users_see_their_own_alerts_and_operators_those_of_all_with_what_became_of_them() {
    let world = World::new().await;
    let (ada, token) = world.user("free", Role::User).await;
    let (bob, _) = world.user("free", Role::User).await;
    let reader = world.key(Scope::UsageRead).await;
    uses(&world, ada, "a", 80_000, "2026-11-20T10:00:00Z").await;
    uses(&world, bob, "a", 95_000, "2026-11-20T11:00:00Z").await;

    let mine = world.get("/api/alerts/me", &token).await.json();
    let id = rows(&mine)[0]["id"].clone();
    let shown = json!({
        "id": id, "user_id": ada, "period": "2026-11", "plan": "free", "meter": "tokens", "percent": 80,
        "limit": 100_000, "used": 80_000, "raised_at": "2026-11-20T10:00:01.000Z",
    });
    let page = json!({"success": true, "data": [shown], "has_more": false, "next_cursor": null});
    assert_eq!(mine, page);

    let id: AlertId = id.as_str().unwrap().parse().unwrap();
    let why = Some("it answered 500".to_owned());
    let ended = Attempt::Ended(DeliveryState::GivenUp, world.clock.now(), why);
    world.ledger.note(id, &ended).await.unwrap();
    let all = world.get(READ, &reader).await.json();
    assert_eq!(percents(&all), [80, 80, 95]);
    let oldest = &rows(&all)[2];
    assert_eq!((&oldest["user_id"], &oldest["id"]), (&json!(ada), &json!(id)));
    let delivery = json!({
        "state": "given_up", "attempts": 0, "ended_at": super::NOW,
        "last_error": "it answered 500",
    });
    assert_eq!(oldest["delivery"], delivery);
    let of = async |filter: &str| world.get(&format!("{READ}?{filter}"), &reader).await.json();
    assert_eq!(percents(&of(&format!("user_id={bob}")).await), [80, 95]);
    assert_eq!(rows(&of("delivery=given_up").await).len(), 1);
    assert_eq!(rows(&of(&format!("delivery=given_up&user_id={bob}")).await).len(), 0);
    assert_eq!(rows(&of("delivery=waiting").await).len(), 2);
}

#[tokio::test]
async fn pages_of_alerts_hold_each_once() {
    let world = World::new().await;
    let (user, token) = world.user("free", Role::User).await;
    uses(&world, user, "a", 100_000, "2026-11-20T10:00:00Z").await;
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let page = world.get(&format!("/api/alerts/me?limit=1{next}"), &token).await.json();
        seen.extend(percents(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        assert_eq!(page["has_more"], true);
        next = format!("&cursor={cursor}");
        let foreign = world.get(&format!("/api/tokens/me/history?cursor={cursor}"), &token).await;
        assert_eq!(foreign.bad_parameter(), "cursor");
    }
    seen.sort_unstable();
    assert_eq!(seen, [80, 95, 100]);
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let world = World::new().await;
    let reader = world.key(Scope::UsageRead).await;
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("user_id=x", "user_id"),
        ("delivery=lost", "delivery"),
    ] {
        let reply = world.get(&format!("{READ}?{query}"), &reader).await;
        assert_eq!(reply.bad_parameter(), parameter, "{query}");
    }
}

#[tokio::test]
async fn what_was_given_up_is_sent_again_when_an_admin_says_so() {
    let world = World::new().await;
    let (user, token) = world.user("free", Role::User).await;
    let (_, admin) = world.user("free", Role::Admin).await;
    let reader = world.key(Scope::UsageRead).await;
    uses(&world, user, "a", 80_000, "2026-11-20T10:00:00Z").await;
    let mine = world.get("/api/alerts/me", &token).await.json();
    let id = rows(&mine)[0]["id"].as_str().unwrap().parse().unwrap();
    let ended = Attempt::Ended(DeliveryState::GivenUp, world.clock.now(), None);
    world.ledger.note(id, &ended).await.unwrap();
    for caller in [&token, &reader] {
        assert_eq!(world.post("/api/alerts/retry", caller).await.status, 403);
    }
    for retried in [1, 0] {
        let reply = world.post("/api/alerts/retry", &admin).await.json();
        assert_eq!(reply, json!({"success": true, "retried": retried}));
    }
    let waiting = world.get(&format!("{READ}?delivery=waiting"), &reader).await.json();
    assert_eq!(rows(&waiting).len(), 1);
}
