//! Which caller may call what: every public route, every kind of caller.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::http::Http;
use crate::server::{Installation, Server};
use crate::tour::{call, register};

/// The answer to each caller: nobody, the user of `{id}`, another user, a key with scope `ingest`,
/// `backfill`, `usage:read`, `users`, `admin`, a user of role admin.
type Statuses = [u16; 9];

const KEY_SCOPES: [&str; 5] = ["ingest", "backfill", "usage:read", "users", "admin"];

/// What an empty body is refused with, whoever calls.
const OPEN: Statuses = [422; 9];
const EVERYBODY: Statuses = [200; 9];
/// `/me`: users, not keys.
const OWN: Statuses = [401, 200, 200, 403, 403, 403, 403, 403, 200];
const ADMINS: Statuses = [401, 403, 403, 403, 403, 403, 403, 200, 200];
const READERS: Statuses = [401, 403, 403, 403, 403, 200, 403, 200, 200];

/// `of` for whoever is let in.
const fn answered(statuses: Statuses, of: u16) -> Statuses {
    let mut statuses = statuses;
    let mut place = 0;
    while place < statuses.len() {
        if statuses[place] == 200 {
            statuses[place] = of;
        }
        place += 1;
    }
    statuses
}

/// Services that report, and admins.
const REPORTERS: Statuses = [401, 403, 403, 200, 403, 403, 403, 200, 200];
const MAKERS: Statuses = [401, 403, 403, 403, 403, 403, 200, 200, 200];
/// A batch is for everybody who may report on somebody, users on themselves included.
const BATCHES: Statuses = [401, 200, 200, 200, 403, 403, 403, 200, 200];

type Row = (&'static str, &'static str, Value, Statuses);

fn accounts() -> Vec<Row> {
    let (none, plan) = (Value::Null, json!({"plan": "free"}));
    vec![
        ("POST", "/api/auth/register", json!({}), OPEN),
        ("POST", "/api/auth/login", json!({}), OPEN),
        ("POST", "/api/auth/refresh", json!({}), OPEN),
        ("POST", "/api/auth/logout", json!({}), OPEN),
        ("GET", "/.well-known/jwks.json", none.clone(), EVERYBODY),
        ("GET", "/api/users/me", none.clone(), OWN),
        ("GET", "/api/preferences/me", none.clone(), OWN),
        ("PUT", "/api/preferences/me", json!({"theme": "dark"}), OWN),
        ("GET", "/api/usage/me", none.clone(), OWN),
        ("GET", "/api/users/me/usage", none.clone(), OWN),
        ("GET", "/api/users/me/subscription", none.clone(), OWN),
        ("PUT", "/api/users/me/subscription", plan.clone(), OWN),
        ("GET", "/api/users", none.clone(), ADMINS),
        ("POST", "/api/users", json!({"external_id": "{fresh}"}), answered(MAKERS, 201)),
        ("GET", "/api/users/{id}", none.clone(), ADMINS),
        ("PATCH", "/api/users/{id}", json!({"locked": false}), ADMINS),
        ("GET", "/api/users/{id}/subscription", none.clone(), ADMINS),
        ("PUT", "/api/users/{id}/subscription", plan, ADMINS),
        ("GET", "/api/users/{id}/usage", none, ADMINS),
    ]
}

fn tokens() -> Vec<Row> {
    let none = Value::Null;
    let event = call("{fresh}", 1, 1);
    let of_user = json!({
        "user_id": "{id}", "event_id": "{fresh}", "request_type": "chat",
        "model": "gpt-3.5-turbo", "prompt_tokens": 1, "completion_tokens": 1,
    });
    let hold = json!({
        "user_id": "{id}", "reservation_id": "{fresh}", "request_type": "chat",
        "model": "gpt-3.5-turbo", "tokens": 1, "expires_in": 1,
    });
    // Nobody has this hold: who may release is told that it is not there.
    let released = answered(OWN, 404);
    vec![
        ("POST", "/api/tokens/me/track", event.clone(), answered(OWN, 201)),
        ("POST", "/api/tokens/track", of_user, answered(REPORTERS, 201)),
        ("POST", "/api/tokens/track/batch", json!([event]), BATCHES),
        ("POST", "/api/tokens/me/reservations", hold.clone(), answered(OWN, 201)),
        ("POST", "/api/tokens/me/reservations/{id}/release", none.clone(), released),
        ("POST", "/api/tokens/reservations", hold, answered(REPORTERS, 201)),
        (
            "POST",
            "/api/tokens/reservations/{id}/release",
            json!({"user_id": "{id}"}),
            answered(REPORTERS, 404),
        ),
        ("GET", "/api/tokens/me", none.clone(), OWN),
        ("GET", "/api/tokens/me/history", none.clone(), OWN),
        ("GET", "/api/users/{id}/tokens", none.clone(), READERS),
        ("GET", "/api/users/{id}/tokens/history", none.clone(), READERS),
        ("GET", "/api/tokens/admin/usage", none.clone(), READERS),
        ("GET", "/api/alerts/me", none.clone(), OWN),
        ("GET", "/api/alerts", none.clone(), READERS),
        ("POST", "/api/alerts/retry", none, ADMINS),
    ]
}

/// What cannot be done twice: it stands last.
fn erasure() -> Row {
    // The second admin finds nothing left to erase.
    let statuses = [401, 403, 403, 403, 403, 403, 403, 200, 404];
    ("DELETE", "/api/users/{id}", Value::Null, statuses)
}

fn table() -> Vec<Row> {
    [accounts(), tokens(), vec![erasure()]].concat()
}

/// A client for each column of [`Statuses`], and the id of the user.
fn callers(installation: &Installation, server: &Server) -> (Vec<Http>, String) {
    let own = register(server, "own@example.org");
    let id = own.get("/api/users/me").expect(200)["id"].as_str().unwrap().to_owned();
    let other = register(server, "other@example.org");
    let keys = KEY_SCOPES.map(|scope| server.http.with_bearer(&installation.key(scope)));
    let chief = register(server, "chief@example.org");
    let chief_id = chief.get("/api/users/me").expect(200)["id"].as_str().unwrap().to_owned();
    let promoted = keys[4].patch(&format!("/api/users/{chief_id}"), &json!({"role": "admin"}));
    promoted.expect(200);
    let users = [server.http.clone(), own, other].into_iter();
    (users.chain(keys).chain([chief]).collect(), id)
}

fn filled(body: &Value, id: &str, fresh: &str) -> Value {
    let text = body.to_string().replace("{id}", id).replace("{fresh}", fresh);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_route_answers_every_kind_of_caller_as_it_should() {
    let installation = Installation::new();
    let server = installation.start();
    let (callers, id) = callers(&installation, &server);
    let mut wrong = Vec::new();
    for (row, (method, path, body, statuses)) in table().into_iter().enumerate() {
        let filled_path = path.replace("{id}", &id);
        for (place, (caller, expected)) in callers.iter().zip(statuses).enumerate() {
            let body = filled(&body, &id, &format!("fresh-{row}-{place}"));
            let body = Some(&body).filter(|body| !body.is_null());
            let answer = caller.try_call(method, &filled_path, body).unwrap();
            if answer.status != expected {
                let got = (answer.status, answer.text);
                wrong.push(format!("{method} {path}, caller {place}: not {expected}, {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_route_is_missing_in_the_table() {
    let routes: BTreeSet<_> = api::ROUTES.iter().chain(ingest::ROUTES).copied().collect();
    let tested: BTreeSet<_> =
        table().into_iter().map(|(method, path, ..)| (method, path)).collect();
    assert_eq!(routes, tested);
}
