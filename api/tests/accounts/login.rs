use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::service::{Answer, PASSWORD, Service, session};

const ADA: &str = "ada@example.com";

async fn refresh(service: &Service, token: &str) -> Answer {
    let body = json!({"refresh_token": token});
    service.call("POST", "/api/auth/refresh").json(body).send().await
}

#[tokio::test]
async fn the_right_password_opens_the_account() {
    let service = Service::start().await;
    let registered = service.register(ADA).await;
    let answer = service.log_in("ADA@example.com", PASSWORD).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["user"]["id"], registered.id.as_str());
    assert_eq!(answer.body["user"]["usage"]["tokens"]["used"], 0);
    let token = session(&answer.body).access_token;
    let me = service.call("GET", "/api/users/me").bearer(&token).send().await;
    assert_eq!(me.status, 200);
}

#[tokio::test]
async fn a_refusal_does_not_tell_whether_there_is_an_account() {
    let service = Service::start().await;
    service.register(ADA).await;
    let mut wrong = service.log_in(ADA, "wrong password").await;
    let mut unknown = service.log_in("nobody@example.com", "wrong password").await;
    assert_eq!(wrong.outcome(), (401, "unauthenticated"));
    for answer in [&mut wrong, &mut unknown] {
        answer.body["request_id"] = Value::Null;
        answer.headers.remove("x-request-id");
    }
    assert_eq!(wrong.body, unknown.body);
    assert_eq!(wrong.headers, unknown.headers);
}

#[tokio::test]
async fn a_bad_login_points_at_its_field() {
    let service = Service::start().await;
    for (body, at) in [
        (json!({"password": PASSWORD}), "#/email"),
        (json!({"email": "nobody", "password": PASSWORD}), "#/email"),
        (json!({"email": ADA}), "#/password"),
        (json!({"email": ADA, "password": "x".repeat(257)}), "#/password"),
    ] {
        let answer = service.call("POST", "/api/auth/login").json(body).send().await;
        assert_eq!((answer.outcome(), answer.at()), ((422, "invalid_request"), at));
    }
}

#[tokio::test]
async fn a_user_without_a_password_cannot_log_in() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let made = service.call("POST", "/api/users").json(json!({"email": ADA}));
    assert_eq!(made.bearer(&admin.access_token).send().await.status, 201);
    assert_eq!(service.log_in(ADA, PASSWORD).await.outcome(), (401, "unauthenticated"));
}

#[tokio::test]
async fn ten_wrong_passwords_close_an_account_for_a_while() {
    let service = Service::start().await;
    service.register(ADA).await;
    for attempt in 0..10 {
        assert_eq!(service.log_in(ADA, PASSWORD).await.status, 200, "right ones do not count");
        assert_eq!(service.log_in(ADA, "wrong password").await.status, 401, "{attempt}");
        service.clock.advance(Duration::from_secs(1));
    }
    let refused = service.log_in("Ada@Example.com", PASSWORD).await;
    assert_eq!(refused.outcome(), (429, "too_many_requests"));
    // The first wrong one was 10 s ago.
    assert_eq!(refused.headers["retry-after"], "890");
    service.clock.advance(Duration::from_secs(890));
    assert_eq!(service.log_in(ADA, PASSWORD).await.status, 429);
    service.clock.advance(Duration::from_millis(1));
    assert_eq!(service.log_in(ADA, PASSWORD).await.status, 200);
}

#[tokio::test]
async fn unknown_accounts_are_throttled_alike() {
    let service = Service::start().await;
    for _ in 0..10 {
        assert_eq!(service.log_in("nobody@example.com", "wrong password").await.status, 401);
    }
    assert_eq!(service.log_in("nobody@example.com", "wrong password").await.status, 429);
}

#[tokio::test]
async fn many_wrong_passwords_at_once_do_not_pass_the_bound() {
    let service = Service::start().await;
    service.register(ADA).await;
    let attempts = (0..30).map(|_| service.log_in(ADA, "wrong password"));
    let answers = futures::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 401).count(), 10);
    assert_eq!(answers.iter().filter(|answer| answer.status == 429).count(), 20);
}

#[tokio::test]
async fn a_hundred_wrong_passwords_close_an_address_for_a_while() {
    let service = Service::start().await;
    service.register(ADA).await;
    let login = |number: usize, client| {
        let body = json!({"email": format!("u{number}@example.com"), "password": "wrong password"});
        service.call("POST", "/api/auth/login").from(client).json(body).send()
    };
    for number in 0..100 {
        assert_eq!(login(number, "198.51.100.1").await.status, 401, "{number}");
    }
    assert_eq!(login(100, "198.51.100.1").await.outcome(), (429, "too_many_requests"));
    assert_eq!(login(100, "198.51.100.2").await.status, 401, "another address is open");
}

#[tokio::test]
async fn refresh_tokens_rotate() {
    let service = Service::start().await;
    let first = service.register(ADA).await;
    let answer = refresh(&service, &first.refresh_token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["expires_in"], 900);
    let second = answer.body["refresh_token"].as_str().unwrap();
    assert_ne!(second, first.refresh_token);
    let token = answer.body["access_token"].as_str().unwrap();
    assert_eq!(service.call("GET", "/api/users/me").bearer(token).send().await.status, 200);
    assert_eq!(refresh(&service, second).await.status, 200);
}

#[tokio::test]
async fn a_refresh_token_used_twice_revokes_its_family() {
    let service = Service::start().await;
    let stolen = service.register(ADA).await.refresh_token;
    let successor = refresh(&service, &stolen).await.body["refresh_token"].clone();
    assert_eq!(refresh(&service, &stolen).await.outcome(), (401, "unauthenticated"));
    let successor = successor.as_str().unwrap();
    assert_eq!(refresh(&service, successor).await.outcome(), (401, "unauthenticated"));
}

#[tokio::test]
async fn refresh_tokens_end_after_thirty_days_or_at_logout() {
    let service = Service::start().await;
    let session = service.register(ADA).await;
    let answer = refresh(&service, &session.refresh_token).await;
    let token = answer.body["refresh_token"].as_str().unwrap();
    let body = json!({"refresh_token": token});
    let logout = || service.call("POST", "/api/auth/logout").json(body.clone()).send();
    assert_eq!(logout().await.status, 200);
    assert_eq!(logout().await.status, 200, "logging out twice is no mistake");
    assert_eq!(refresh(&service, token).await.status, 401);

    let session = crate::service::session(&service.log_in(ADA, PASSWORD).await.body);
    service.clock.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(refresh(&service, &session.refresh_token).await.status, 401);
    assert_eq!(refresh(&service, "never issued").await.status, 401);
}

#[tokio::test]
async fn access_tokens_expire_after_their_time() {
    let service = Service::start().await;
    let token = service.register(ADA).await.access_token;
    let me = || service.call("GET", "/api/users/me").bearer(&token).send();
    service.clock.advance(Duration::from_secs(899));
    assert_eq!(me().await.status, 200);
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(me().await.outcome(), (401, "credentials_expired"));
}

#[tokio::test]
async fn the_jwks_verifies_access_tokens() {
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};
    let service = Service::start().await;
    let token = service.register(ADA).await.access_token;
    let jwks = service.call("GET", "/.well-known/jwks.json").send().await;
    assert_eq!(jwks.status, 200);
    let key = &jwks.body["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"))
    );
    assert_eq!(jwks.body.as_object().unwrap().len(), 1, "others fix its shape: no `success`");

    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.decode(signed.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["kid"], key["kid"]);
    let public = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
    let public = VerifyingKey::from_bytes(&public.try_into().unwrap()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let signature = Signature::from_slice(&signature).unwrap();
    public.verify(signed.as_bytes(), &signature).unwrap();
}
