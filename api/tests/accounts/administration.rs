use std::time::Duration;

use metering::accounts::{Accounts, Scope};
use serde_json::{Value, json};

use crate::service::{Answer, PASSWORD, Service, Session};

async fn create(service: &Service, credential: &str, body: Value) -> Answer {
    service.call("POST", "/api/users").bearer(credential).json(body).send().await
}

async fn patch(service: &Service, admin: &Session, id: &str, body: Value) -> Answer {
    let call = service.call("PATCH", &format!("/api/users/{id}"));
    call.bearer(&admin.access_token).json(body).send().await
}

#[tokio::test]
async fn a_service_makes_its_users_and_gets_the_same_ones_again() {
    let service = Service::start().await;
    let key = service.key(Scope::Users).await;
    let body = json!({"external_id": "crm-7", "plan": "professional"});
    let made = create(&service, &key, body.clone()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!((&made.body["external_id"], &made.body["email"]), (&json!("crm-7"), &Value::Null));
    assert_eq!(made.body["subscription"]["plan"], "professional");
    assert_eq!(made.body["usage"]["tokens"]["limit"], Value::Null);
    let again = create(&service, &key, body).await;
    assert_eq!((again.status.as_u16(), &again.body["id"]), (200, &made.body["id"]));
    let admin = create(&service, &key, json!({"email": "x@y", "role": "admin"})).await;
    assert_eq!(admin.outcome(), (403, "forbidden"));
}

#[tokio::test]
async fn a_bad_creation_points_at_its_field() {
    let service = Service::start().await;
    let token = service.admin().await.access_token;
    for (body, at) in [
        (json!({"external_id": ""}), "#/external_id"),
        (json!({"external_id": "x".repeat(257)}), "#/external_id"),
        (json!({"email": "x"}), "#/email"),
        (json!({"password": PASSWORD}), "#/email"),
        (json!({"email": "x@y", "password": "short"}), "#/password"),
        (json!({"plan": "gold"}), "#/plan"),
        (json!({"role": "king"}), "#/role"),
    ] {
        let answer = create(&service, &token, body).await;
        assert_eq!((answer.outcome(), answer.at()), ((422, "invalid_request"), at));
    }
    let taken = json!({"email": "ROOT@example.com"});
    assert_eq!(create(&service, &token, taken).await.outcome(), (409, "email_taken"));
}

#[tokio::test]
async fn users_are_listed_page_by_page() {
    let service = Service::start().await;
    let token = service.admin().await.access_token;
    for number in 0..5 {
        service.clock.advance(Duration::from_millis(1));
        create(&service, &token, json!({"external_id": format!("Crm-{number}")})).await;
    }
    let get =
        |query: String| service.call("GET", &format!("/api/users?{query}")).bearer(&token).send();
    let names = |answer: &Answer| {
        let rows = answer.body["data"].as_array().unwrap().iter();
        rows.map(|row| row["external_id"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    let first = get("search=CRM&limit=2".into()).await;
    assert_eq!(names(&first), ["Crm-0", "Crm-1"]);
    assert_eq!(first.body["has_more"], true);
    assert_eq!(first.body["data"][0]["subscription"]["plan"], "free");
    let cursor = first.body["next_cursor"].as_str().unwrap().to_owned();
    // A new row does not move the page.
    service.clock.advance(Duration::from_millis(1));
    create(&service, &token, json!({"external_id": "Crm-5"})).await;
    let rest = get(format!("search=CRM&cursor={cursor}")).await;
    assert_eq!(names(&rest), ["Crm-2", "Crm-3", "Crm-4", "Crm-5"]);
    assert_eq!((&rest.body["has_more"], &rest.body["next_cursor"]), (&json!(false), &Value::Null));
    assert_eq!(names(&get(String::new()).await).len(), 7);
    for (query, at) in [
        (format!("search=other&cursor={cursor}"), "cursor"),
        (format!("cursor={cursor}"), "cursor"),
        ("cursor=nonsense".into(), "cursor"),
        ("limit=0".into(), "limit"),
        ("limit=201".into(), "limit"),
        ("limit=-1".into(), "limit"),
        ("limit=x".into(), "limit"),
    ] {
        let answer = get(query.clone()).await;
        assert_eq!((answer.outcome(), answer.at()), ((422, "invalid_request"), at), "{query}");
    }
}

#[tokio::test]
async fn a_lock_is_in_force_at_once_and_can_be_lifted() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let user = service.register("ada@example.com").await;
    let me = || service.call("GET", "/api/users/me").bearer(&user.access_token).send();
    assert_eq!(me().await.status, 200);
    let locked = patch(&service, &admin, &user.id, json!({"locked": true})).await;
    assert_eq!((locked.status.as_u16(), &locked.body["locked"]), (200, &json!(true)));
    assert_eq!(me().await.outcome(), (401, "unauthenticated"));
    assert_eq!(
        service.log_in("ada@example.com", PASSWORD).await.outcome(),
        (401, "unauthenticated")
    );
    let body = json!({"refresh_token": user.refresh_token});
    let refresh = || service.call("POST", "/api/auth/refresh").json(body.clone()).send();
    assert_eq!(refresh().await.status, 401);
    assert!(service.track(&user.id, "gpt-3.5-turbo", 1).await, "services may still meter them");
    assert_eq!(patch(&service, &admin, &user.id, json!({"locked": false})).await.status, 200);
    assert_eq!(me().await.status, 200);
    assert_eq!(refresh().await.status, 401, "the sessions of before stay ended");
    assert_eq!(service.log_in("ada@example.com", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_role_is_in_force_at_once() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let user = service.register("ada@example.com").await;
    let list = || service.call("GET", "/api/users").bearer(&user.access_token).send();
    assert_eq!(list().await.status, 403);
    assert_eq!(patch(&service, &admin, &user.id, json!({"role": "admin"})).await.status, 200);
    assert_eq!(list().await.status, 200);
    assert_eq!(patch(&service, &admin, &user.id, json!({"role": "user"})).await.status, 200);
    assert_eq!(list().await.status, 403);
}

#[tokio::test]
async fn a_profile_may_be_sent_back_and_other_fields_may_not() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let user = service.register("ada@example.com").await;
    let path = format!("/api/users/{}", user.id);
    let mut shown = service.call("GET", &path).bearer(&admin.access_token).send().await.body;
    assert_eq!(shown["email"], "ada@example.com");
    shown["locked"] = json!(true);
    shown["name"] = json!("Eve");
    let changed = patch(&service, &admin, &user.id, shown).await;
    assert_eq!((changed.status.as_u16(), &changed.body["locked"]), (200, &json!(true)));
    assert_eq!(changed.body["name"], "Ada");
    for (body, at) in [
        (json!({"password": "another one"}), "#/password"),
        (json!({"locked": "no"}), "#/locked"),
        (json!({"role": "king"}), "#/role"),
    ] {
        let answer = patch(&service, &admin, &user.id, body).await;
        assert_eq!((answer.outcome(), answer.at()), ((422, "invalid_request"), at));
    }
}

#[tokio::test]
async fn an_erased_user_is_gone_and_may_come_again() {
    let service = Service::start().await;
    let admin = service.admin().await;
    let user = service.register("ada@example.com").await;
    assert!(service.track(&user.id, "gpt-3.5-turbo", 1).await);
    let path = format!("/api/users/{}", user.id);
    let delete = || service.call("DELETE", &path).bearer(&admin.access_token).send();
    assert_eq!(delete().await.status, 200);
    let id = user.id.parse().unwrap();
    assert_eq!(service.store.find(id).await.unwrap(), None);
    assert_eq!(*service.ledger.erased.lock().unwrap(), [id]);
    let me = service.call("GET", "/api/users/me").bearer(&user.access_token).send().await;
    assert_eq!(me.outcome(), (401, "unauthenticated"));
    assert_eq!(service.log_in("ada@example.com", PASSWORD).await.status, 401);
    assert!(!service.track(&user.id, "gpt-3.5-turbo", 1).await, "the counter knows them no more");
    let shown = service.call("GET", &path).bearer(&admin.access_token).send().await;
    assert_eq!(shown.outcome(), (404, "not_found"));
    assert_eq!(delete().await.outcome(), (404, "not_found"));
    assert_ne!(service.register("ada@example.com").await.id, user.id);
}

#[tokio::test]
async fn what_is_no_user_is_not_found() {
    let service = Service::start().await;
    let token = service.admin().await.access_token;
    for id in ["0199e5a0-0000-7000-8000-000000000000", "nobody", "%00"] {
        for (method, rest, body) in [
            ("GET", "", None),
            ("PATCH", "", Some(json!({"locked": true}))),
            ("DELETE", "", None),
            ("GET", "/subscription", None),
            ("PUT", "/subscription", Some(json!({"plan": "free"}))),
            ("GET", "/usage", None),
        ] {
            let mut call = service.call(method, &format!("/api/users/{id}{rest}")).bearer(&token);
            if let Some(body) = body {
                call = call.json(body);
            }
            assert_eq!(call.send().await.outcome(), (404, "not_found"), "{method} {id}{rest}");
        }
    }
}
