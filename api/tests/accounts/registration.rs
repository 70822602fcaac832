use api::Payments;
use serde_json::{Value, json};

use crate::service::{PASSWORD, Service, session};

fn body(changes: Value) -> Value {
    let mut body = json!({"name": "Ada", "email": "ada@example.com", "password": PASSWORD});
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn whoever_registers_is_logged_in() {
    let service = Service::start().await;
    let answer = service.call("POST", "/api/auth/register").json(body(json!({}))).send().await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body["token_type"], "bearer");
    assert_eq!(answer.body["expires_in"], 900);
    let user = &answer.body["user"];
    assert_eq!((&user["name"], &user["email"]), (&json!("Ada"), &json!("ada@example.com")));
    assert_eq!((&user["role"], &user["locked"]), (&json!("user"), &json!(false)));
    assert_eq!(user["external_id"], Value::Null);
    assert_eq!(user["created_at"], "2026-10-15T12:00:00.000Z");
    assert_eq!(user["subscription"]["plan"], "free");
    assert_eq!(user["subscription"]["token_limit"], 100_000);
    assert_eq!(user["preferences"]["theme"], "system");
    let tokens = json!({"used": 0, "limit": 100_000, "reset_date": "2026-11-01T00:00:00.000Z"});
    assert_eq!(user["usage"]["tokens"], tokens);
    assert_eq!(user["usage"]["plagiarism_checks"]["limit"], 5);
    let session = session(&answer.body);
    let me = service.call("GET", "/api/users/me").bearer(&session.access_token).send().await;
    assert_eq!(me.status, 200);
    assert_eq!(me.body["id"], user["id"]);
    assert_eq!(me.body["usage"], user["usage"]);
}

#[tokio::test]
async fn a_bad_registration_points_at_its_field() {
    let service = Service::start().await;
    for (changes, at) in [
        (json!({"name": ""}), "#/name"),
        (json!({"name": null}), "#/name"),
        (json!({"name": "x".repeat(201)}), "#/name"),
        (json!({"email": "nobody"}), "#/email"),
        (json!({"email": 7}), "#/email"),
        (json!({"email": "a\u{0}@example.com"}), "#/email"),
        (json!({"password": "seven77"}), "#/password"),
        (json!({"password": "x".repeat(257)}), "#/password"),
        (json!({"role": "king"}), "#/role"),
        (json!({"subscription": {"plan": "gold"}}), "#/subscription/plan"),
        (json!({"subscription": {}}), "#/subscription/plan"),
        (
            json!({"subscription": {"plan": "free", "payment_method_id": ""}}),
            "#/subscription/payment_method_id",
        ),
    ] {
        let call = service.call("POST", "/api/auth/register").json(body(changes.clone()));
        let answer = call.send().await;
        assert_eq!((answer.outcome(), answer.at()), ((422, "invalid_request"), at), "{changes}");
    }
    // None of them made a user.
    assert_eq!(service.register("ada@example.com").await.id.len(), 36);
}

#[tokio::test]
async fn passwords_of_8_and_of_256_characters_are_good() {
    let service = Service::start().await;
    for (email, password) in [("a@b", "ähm, ähm".to_owned()), ("c@d", "ß".repeat(256))] {
        let changes = json!({"email": email, "password": password});
        let call = service.call("POST", "/api/auth/register").json(body(changes));
        assert_eq!(call.send().await.status, 201, "{email}");
        assert_eq!(service.log_in(email, &password).await.status, 200);
    }
}

#[tokio::test]
async fn an_address_is_registered_once() {
    let service = Service::start().await;
    service.register("ada@example.com").await;
    let changes = json!({"email": "ADA@Example.Com"});
    let again = service.call("POST", "/api/auth/register").json(body(changes)).send().await;
    assert_eq!(again.outcome(), (409, "email_taken"));
}

#[tokio::test]
async fn only_admins_register_admins() {
    let service = Service::start().await;
    let user = service.register("user@example.com").await;
    let admin = service.admin().await;
    let call = || service.call("POST", "/api/auth/register").json(body(json!({"role": "admin"})));
    assert_eq!(call().send().await.outcome(), (401, "unauthenticated"));
    assert_eq!(call().bearer(&user.access_token).send().await.outcome(), (403, "forbidden"));
    assert_eq!(call().bearer("nonsense").send().await.outcome(), (401, "unauthenticated"));
    let made = call().bearer(&admin.access_token).send().await;
    assert_eq!((made.status.as_u16(), &made.body["user"]["role"]), (201, &json!("admin")));
}

#[tokio::test]
async fn paid_plans_follow_the_payments_setting() {
    let asked = json!({"subscription": {"plan": "basic", "payment_method_id": "pm_1"}});
    let service = Service::start().await;
    let call = || service.call("POST", "/api/auth/register").json(body(asked.clone()));
    assert_eq!(call().send().await.outcome(), (403, "payments_unavailable"));
    let admin = service.admin().await;
    let granted = call().bearer(&admin.access_token).send().await;
    assert_eq!(granted.body["user"]["subscription"]["plan"], "basic");

    let service = Service::with_payments(Payments::Trust).await;
    let taken = service.call("POST", "/api/auth/register").json(body(asked)).send().await;
    assert_eq!(taken.status, 201);
    let subscription = &taken.body["user"]["subscription"];
    assert_eq!(subscription["plan"], "basic");
    assert_eq!(subscription["payment_method_id"], "pm_1");
    assert_eq!(subscription["auto_renew"], true);
}
