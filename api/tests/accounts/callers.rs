//! Which caller may call what.

use std::collections::BTreeSet;

use metering::accounts::Scope;
use serde_json::{Value, json};

use crate::service::Service;

/// The answer to each caller: none, a user, a key with scope `ingest`, `users`, `usage:read`, an
/// admin, a key with scope `admin`.
type Statuses = [u16; 7];

const OPEN: Statuses = [422; 7];
const OWN: Statuses = [401, 200, 403, 403, 403, 200, 403];
const ADMINS: Statuses = [401, 403, 403, 403, 403, 200, 200];

fn table() -> Vec<(&'static str, &'static str, Value, Statuses)> {
    let none = Value::Null;
    let plan = json!({"plan": "free"});
    vec![
        // Open to everybody: the empty body is what is refused.
        ("POST", "/api/auth/register", json!({}), OPEN),
        ("POST", "/api/auth/login", json!({}), OPEN),
        ("POST", "/api/auth/refresh", json!({}), OPEN),
        ("POST", "/api/auth/logout", json!({}), OPEN),
        ("GET", "/.well-known/jwks.json", none.clone(), [200; 7]),
        ("GET", "/api/users/me", none.clone(), OWN),
        ("GET", "/api/preferences/me", none.clone(), OWN),
        ("PUT", "/api/preferences/me", json!({"theme": "dark"}), OWN),
        ("GET", "/api/usage/me", none.clone(), OWN),
        ("GET", "/api/users/me/usage", none.clone(), OWN),
        ("GET", "/api/users/me/subscription", none.clone(), OWN),
        ("PUT", "/api/users/me/subscription", plan.clone(), OWN),
        ("GET", "/api/users", none.clone(), ADMINS),
        // The second one gets the user that the first one made.
        ("POST", "/api/users", json!({"external_id": "x"}), [401, 403, 403, 201, 403, 200, 200]),
        ("GET", "/api/users/{id}", none.clone(), ADMINS),
        ("PATCH", "/api/users/{id}", json!({"locked": false}), ADMINS),
        ("GET", "/api/users/{id}/subscription", none.clone(), ADMINS),
        ("PUT", "/api/users/{id}/subscription", plan, ADMINS),
        ("GET", "/api/users/{id}/usage", none.clone(), ADMINS),
        // Last: after the first admin there is nothing left to erase.
        ("DELETE", "/api/users/{id}", none, [401, 403, 403, 403, 403, 200, 404]),
    ]
}

#[tokio::test]
async fn every_route_answers_every_kind_of_caller_as_it_should() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await.access_token;
    let target = service.register("target@example.com").await.id;
    let credentials = [
        None,
        Some(user),
        Some(service.key(Scope::Ingest).await),
        Some(service.key(Scope::Users).await),
        Some(service.key(Scope::UsageRead).await),
        Some(service.admin().await.access_token),
        Some(service.key(Scope::Admin).await),
    ];
    for (method, path, body, statuses) in table() {
        let path = path.replace("{id}", &target);
        for (place, (credential, status)) in credentials.iter().zip(statuses).enumerate() {
            let mut call = service.call(method, &path);
            if let Some(credential) = credential {
                call = call.bearer(credential);
            }
            if body != Value::Null {
                call = call.json(body.clone());
            }
            let answer = call.send().await;
            assert_eq!(answer.status, status, "{method} {path}, caller {place}: {}", answer.body);
        }
    }
}

#[test]
fn no_route_of_accounts_is_missing_in_the_table() {
    let accounts = |path: &&str| !path.contains("/tokens");
    let routes: BTreeSet<_> =
        api::ROUTES.iter().copied().filter(|(_, path)| accounts(path)).collect();
    let tested: BTreeSet<_> =
        table().into_iter().map(|(method, path, ..)| (method, path)).collect();
    assert_eq!(routes, tested);
}

#[tokio::test]
async fn credentials_come_before_the_form_of_the_request() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await.access_token;
    let bad = json!({"nonsense": true});
    for (method, path) in
        [("POST", "/api/users"), ("PATCH", "/api/users/x"), ("PUT", "/api/users/x/subscription")]
    {
        let nobody = service.call(method, path).json(bad.clone()).send().await;
        assert_eq!(nobody.status, 401, "{method} {path}");
        let call = service.call(method, path).bearer(&user).json(bad.clone());
        assert_eq!(call.send().await.status, 403, "{method} {path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_with_those_that_there_are() {
    let service = Service::start().await;
    let answer = service.call("DELETE", "/api/preferences/me").send().await;
    assert_eq!(answer.outcome(), (405, "method_not_allowed"));
    let allowed = answer.headers["allow"].to_str().unwrap();
    assert!(allowed.contains("GET") && allowed.contains("PUT"), "{allowed}");
}
