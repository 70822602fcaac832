//! Reservations: hold, settle, release.

use metering::accounts::Scope;
use serde_json::{Value, json};

use crate::house::{FOR, House, OWN, chat, with};

const HOLD: &str = "/api/tokens/me/reservations";
const HOLD_FOR: &str = "/api/tokens/reservations";

fn hold(id: &str, tokens: u64) -> Value {
    json!({"reservation_id": id, "model": "gpt-3.5-turbo", "request_type": "chat", "tokens": tokens})
}

#[tokio::test]
async fn a_hold_takes_its_tokens_until_it_is_released_or_ends() {
    let house = House::new().await;
    let user = house.user("free").await;
    let held = house.post(HOLD, &user.token, &hold("r1", 60_000)).await.expect(201);
    let expected = json!({
        "success": true, "reservation_id": "r1", "tokens": 60_000,
        "expires_at": "2026-10-10T12:10:00.000Z",
        "usage": {"used": 60_000, "limit": 100_000, "remaining": 40_000,
                  "reset_date": "2026-11-01T00:00:00.000Z"},
    });
    assert_eq!(held.body, expected);
    assert!(held.header("ratelimit").starts_with(r#""tokens";r=40000;"#));
    let second = house.post(HOLD, &user.token, &hold("r2", 50_000)).await;
    assert_eq!(second.refused(), (429, "token_limit_reached"));
    assert_eq!(second.body["upgrade"]["plan"], "basic");
    let event = house.post(OWN, &user.token, &chat(50_000)).await;
    assert_eq!(event.refused(), (429, "token_limit_reached"));

    let release = format!("{HOLD}/r1/release");
    house.post(&release, &user.token, &json!({})).await.expect(200);
    let again = house.post(&release, &user.token, &json!({})).await;
    assert_eq!(again.refused(), (404, "not_found"));
    let short = with(hold("r2", 50_000), json!({"expires_in": 1}));
    house.post(HOLD, &user.token, &short).await.expect(201);
    house.clock.advance(std::time::Duration::from_secs(2));
    house.post(HOLD, &user.token, &hold("r3", 60_000)).await.expect(201);
}

#[tokio::test]
async fn the_same_hold_again_is_the_first_one() {
    let house = House::new().await;
    let user = house.user("free").await;
    house.post(HOLD, &user.token, &hold("r1", 100)).await.expect(201);
    house.clock.advance(std::time::Duration::from_secs(60));
    let again = house.post(HOLD, &user.token, &hold("r1", 100)).await.expect(200);
    assert_eq!(again.body["expires_at"], "2026-10-10T12:10:00.000Z");
    assert_eq!(again.body["usage"]["used"], 100);
    let other = house.post(HOLD, &user.token, &hold("r1", 101)).await;
    assert_eq!(other.refused(), (409, "reservation_id_reused"));
    let mut nameless = hold("", 1);
    nameless.as_object_mut().unwrap().remove("reservation_id");
    let made = house.post(HOLD, &user.token, &nameless).await.expect(201);
    assert_eq!(made.body["reservation_id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn a_settled_hold_lets_the_event_in_and_ends() {
    let house = House::new().await;
    let user = house.user("free").await;
    let service = house.key(&[Scope::Ingest]).await;
    let of_user = json!({"user_id": user.id});
    let held = house.post(HOLD_FOR, &service, &with(hold("r1", 90_000), of_user.clone())).await;
    held.expect(201);
    let settle = |id: &str, tokens: u64| {
        with(chat(tokens), json!({"event_id": id, "reservation_id": "r1", "user_id": user.id}))
    };
    let above = house.post(OWN, &user.token, &settle("mine", 100_001)).await;
    assert_eq!(above.refused(), (429, "token_limit_reached"), "a user's own call must fit");
    let above = house.post(FOR, &service, &settle("e1", 120_000)).await.expect(201);
    assert_eq!(above.body["flags"], json!(["over_hold"]));
    assert_eq!(above.body["usage"]["remaining"], 0);
    let again = house.post(FOR, &service, &settle("e1", 120_000)).await.expect(200);
    assert_eq!(again.body["flags"], json!(["over_hold"]));
    let ended = house.post(FOR, &service, &settle("e2", 1)).await;
    assert_eq!(ended.refused(), (429, "token_limit_reached"), "a hold ends once");
    let release = format!("{HOLD_FOR}/r1/release");
    let gone = house.post(&release, &service, &of_user).await;
    assert_eq!(gone.refused(), (404, "not_found"));
}

#[tokio::test]
async fn a_service_releases_only_the_named_users_hold() {
    let house = House::new().await;
    let (user, other) = (house.user("free").await, house.user("free").await);
    let service = house.key(&[Scope::Ingest]).await;
    let of = |user: &crate::house::User| json!({"user_id": user.id});
    house.post(HOLD_FOR, &service, &with(hold("r1", 1), of(&user))).await.expect(201);
    let release = format!("{HOLD_FOR}/r1/release");
    assert_eq!(house.post(&release, &service, &of(&other)).await.refused(), (404, "not_found"));
    let foreign = house.post(&format!("{HOLD}/r1/release"), &other.token, &json!({})).await;
    assert_eq!(foreign.refused(), (404, "not_found"));
    let nobody = house.post(&release, &service, &json!({})).await;
    assert_eq!(nobody.refused(), (422, "invalid_request"));
    house.post(&release, &service, &of(&user)).await.expect(200);
}

#[tokio::test]
async fn every_bad_hold_has_its_answer() {
    let house = House::new().await;
    let user = house.user("free").await;
    let service = house.key(&[Scope::Ingest]).await;
    let good = hold("r", 1);
    for (change, status, code, pointer) in [
        (json!({"tokens": -1}), 422, "invalid_request", "#/tokens"),
        (json!({"tokens": 1.5}), 422, "invalid_request", "#/tokens"),
        (json!({"tokens": 1_000_000_001u64}), 422, "impossible_tokens", "#/tokens"),
        (json!({"expires_in": 0}), 422, "invalid_request", "#/expires_in"),
        (json!({"expires_in": 86_401}), 422, "invalid_request", "#/expires_in"),
        (json!({"request_type": "song"}), 422, "invalid_request", "#/request_type"),
        (json!({"model": null}), 422, "invalid_request", "#/model"),
        (json!({"model": "none"}), 422, "unknown_model", "#/model"),
        (json!({"reservation_id": ""}), 422, "invalid_request", "#/reservation_id"),
    ] {
        let body = with(good.clone(), change);
        let answer = house.post(HOLD, &user.token, &body).await;
        assert_eq!(answer.refused(), (status, code), "{body}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}");
    }
    let tier = with(good.clone(), json!({"model": "gpt-4"}));
    let tier = house.post(HOLD, &user.token, &tier).await;
    assert_eq!(tier.refused(), (403, "model_not_in_plan"));
    assert_eq!(house.post(HOLD, &service, &good).await.refused(), (403, "forbidden"));
    assert_eq!(house.post(HOLD_FOR, &user.token, &good).await.refused(), (403, "forbidden"));
    assert_eq!(house.post(HOLD, "", &good).await.refused(), (401, "unauthenticated"));
    let unknown = with(good, json!({"external_user_id": "nobody"}));
    assert_eq!(house.post(HOLD_FOR, &service, &unknown).await.refused(), (422, "unknown_user"));
}
