use serde_json::{Value, json};

use crate::service::{Answer, Service};

async fn put(service: &Service, token: &str, body: Value) -> Answer {
    service.call("PUT", "/api/preferences/me").bearer(token).json(body).send().await
}

#[tokio::test]
async fn preferences_are_made_with_defaults_and_changed_in_part() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await;
    let token = &user.access_token;
    let get = || service.call("GET", "/api/preferences/me").bearer(token).send();
    let made = get().await.body;
    assert!(made["id"].as_str().unwrap().starts_with("pref_"));
    assert_eq!(made["user_id"], user.id.as_str());
    assert_eq!((&made["theme"], &made["notifications"]), (&json!("system"), &json!(true)));
    assert_eq!(made["default_model"], "gpt-3.5-turbo");
    let changed = put(&service, token, json!({"theme": "dark"})).await;
    assert_eq!((changed.status.as_u16(), &changed.body["theme"]), (200, &json!("dark")));
    assert_eq!(changed.body["notifications"], true);
    assert_eq!(get().await.body, changed.body);
}

#[tokio::test]
async fn what_get_shows_may_be_sent_back_and_other_fields_may_not() {
    let service = Service::start().await;
    let token = service.register("ada@example.com").await.access_token;
    let mut shown = service.call("GET", "/api/preferences/me").bearer(&token).send().await.body;
    shown["notifications"] = json!(false);
    let sent_back = put(&service, &token, shown.clone()).await;
    assert_eq!((sent_back.status.as_u16(), &sent_back.body["notifications"]), (200, &json!(false)));
    assert_eq!(sent_back.body["id"], shown["id"]);
    for (body, at) in [
        (json!({"colour": "red"}), "#/colour"),
        (json!({"theme": "blue"}), "#/theme"),
        (json!({"notifications": "yes"}), "#/notifications"),
    ] {
        let answer = put(&service, &token, body).await;
        assert_eq!((answer.outcome(), answer.at()), ((422, "invalid_request"), at));
    }
}

#[tokio::test]
async fn a_default_model_lies_within_the_plan() {
    let service = Service::start().await;
    let token = service.register("ada@example.com").await.access_token;
    let model = |name: &str| put(&service, &token, json!({"default_model": name}));
    assert_eq!(model("gpt-4o-mini").await.status, 200);
    assert_eq!(model("eliza").await.outcome(), (422, "unknown_model"));
    let refused = model("gpt-4-turbo").await;
    assert_eq!(refused.outcome(), (403, "model_not_in_plan"));
    let upgrade =
        json!({"plan": "professional", "token_limit": null, "max_model_tier": "gpt-4-turbo"});
    assert_eq!(refused.body["upgrade"], upgrade);
    assert_eq!(model("gpt-4").await.body["upgrade"]["plan"], "basic");
}

#[tokio::test]
async fn a_default_model_stays_after_a_downgrade() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await;
    let admin = service.admin().await;
    let token = &user.access_token;
    let path = format!("/api/users/{}/subscription", user.id);
    let plan = |name: &str| {
        let body = json!({"plan": name});
        service.call("PUT", &path).bearer(&admin.access_token).json(body).send()
    };
    assert_eq!(plan("basic").await.status, 200);
    assert_eq!(put(&service, token, json!({"default_model": "gpt-4"})).await.status, 200);
    assert_eq!(plan("free").await.status, 200);
    let kept = json!({"theme": "light", "default_model": "gpt-4"});
    assert_eq!(put(&service, token, kept).await.status, 200);
    let other = json!({"default_model": "gpt-4o"});
    assert_eq!(put(&service, token, other).await.outcome(), (403, "model_not_in_plan"));
}

#[tokio::test]
async fn usage_is_live_and_unlimited_is_null() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await;
    assert!(service.track(&user.id, "gpt-3.5-turbo", 1234).await);
    let reset_date = "2026-11-01T00:00:00.000Z";
    for path in ["/api/usage/me", "/api/users/me/usage"] {
        let usage = service.call("GET", path).bearer(&user.access_token).send().await.body;
        let counter =
            |used, limit: Value| json!({"used": used, "limit": limit, "reset_date": reset_date});
        assert_eq!(usage["tokens"], counter(1234, json!(100_000)), "{path}");
        assert_eq!(usage["chat_messages"], counter(1, json!(100)));
        assert_eq!(usage["plagiarism_checks"], counter(0, json!(5)));
        assert_eq!(usage["prompts_generated"], counter(0, json!(10)));
    }
    let admin = service.admin().await;
    let path = format!("/api/users/{}", user.id);
    let body = json!({"plan": "professional"});
    let plan = service.call("PUT", &format!("{path}/subscription")).json(body);
    assert_eq!(plan.bearer(&admin.access_token).send().await.status, 200);
    let usage = service.call("GET", &format!("{path}/usage")).bearer(&admin.access_token);
    assert_eq!(usage.send().await.body["tokens"]["limit"], Value::Null);
}
