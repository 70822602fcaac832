use api::Payments;
use serde_json::{Value, json};

use crate::service::{Answer, Service};

const MINE: &str = "/api/users/me/subscription";

async fn put(service: &Service, path: &str, token: &str, body: Value) -> Answer {
    service.call("PUT", path).bearer(token).json(body).send().await
}

#[tokio::test]
async fn a_subscription_shows_the_terms_in_force() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await;
    let shown = service.call("GET", MINE).bearer(&user.access_token).send().await.body;
    let expected = json!({
        "success": true,
        "id": shown["id"],
        "user_id": user.id,
        "plan": "free",
        "status": "active",
        "start_date": "2026-10-15T12:00:00.000Z",
        "expires_at": null,
        "is_active": true,
        "auto_renew": false,
        "stripe_customer_id": null,
        "stripe_subscription_id": null,
        "payment_method_id": null,
        "token_limit": 100_000,
        "max_model_tier": "gpt-3.5-turbo",
        "created_at": "2026-10-15T12:00:00.000Z",
        "updated_at": "2026-10-15T12:00:00.000Z",
    });
    assert_eq!(shown, expected);
    assert!(shown["id"].as_str().unwrap().starts_with("sub_"));
}

#[tokio::test]
async fn an_upgrade_is_in_force_for_the_very_next_call_and_a_downgrade_keeps_what_was_used() {
    let service = Service::with_payments(Payments::Trust).await;
    let user = service.register("ada@example.com").await;
    let (token, id) = (&user.access_token, &user.id);
    assert!(service.track(id, "gpt-3.5-turbo", 100_000).await);
    assert!(!service.track(id, "gpt-3.5-turbo", 1).await);
    let upgraded = put(&service, MINE, token, json!({"plan": "basic"})).await;
    assert_eq!((upgraded.status.as_u16(), &upgraded.body["token_limit"]), (200, &json!(500_000)));
    assert!(service.track(id, "gpt-4", 200_000).await);
    assert_eq!(put(&service, MINE, token, json!({"plan": "free"})).await.status, 200);
    assert!(!service.track(id, "gpt-3.5-turbo", 1).await);
    let usage = service.call("GET", "/api/usage/me").bearer(token).send().await.body;
    assert_eq!(
        (&usage["tokens"]["used"], &usage["tokens"]["limit"]),
        (&json!(300_000), &json!(100_000))
    );
}

#[tokio::test]
async fn without_payments_only_admins_grant_paid_plans() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await;
    let admin = service.admin().await;
    let theirs = format!("/api/users/{}/subscription", user.id);
    let own = |body| put(&service, MINE, &user.access_token, body);
    assert_eq!(own(json!({"plan": "basic"})).await.outcome(), (403, "payments_unavailable"));
    let granted = put(&service, &theirs, &admin.access_token, json!({"plan": "basic"})).await;
    assert_eq!((granted.status.as_u16(), &granted.body["plan"]), (200, &json!("basic")));
    // What was granted may be kept, given back, and not taken again.
    let kept = own(json!({"plan": "basic", "auto_renew": true})).await;
    assert_eq!((kept.status.as_u16(), &kept.body["auto_renew"]), (200, &json!(true)));
    assert_eq!(own(json!({"plan": "free"})).await.status, 200);
    assert_eq!(own(json!({"plan": "basic"})).await.outcome(), (403, "payments_unavailable"));
}

#[tokio::test]
async fn a_subscription_may_be_sent_back_and_other_fields_may_not() {
    let service = Service::with_payments(Payments::Trust).await;
    let token = service.register("ada@example.com").await.access_token;
    let mut shown = service.call("GET", MINE).bearer(&token).send().await.body;
    shown["plan"] = json!("professional");
    shown["payment_method_id"] = json!("pm_7");
    let changed = put(&service, MINE, &token, shown).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.body["plan"], "professional");
    assert_eq!(changed.body["token_limit"], Value::Null);
    assert_eq!(changed.body["payment_method_id"], "pm_7");
    for (body, at) in [
        (json!({"plan": "gold"}), "#/plan"),
        (json!({}), "#/plan"),
        (json!({"plan": "free", "coupon": "x"}), "#/coupon"),
        (json!({"plan": "free", "payment_method_id": "x".repeat(256)}), "#/payment_method_id"),
        (json!({"plan": "free", "auto_renew": 1}), "#/auto_renew"),
    ] {
        let answer = put(&service, MINE, &token, body).await;
        assert_eq!((answer.outcome(), answer.at()), ((422, "invalid_request"), at));
    }
}
