//! What a user sees on the first day.

use serde_json::{Value, json};

use crate::http::Http;
use crate::server::{Installation, Server, eventually};

/// Registers a user: a client with their access token.
#[track_caller]
pub(crate) fn register(server: &Server, email: &str) -> Http {
    let body = json!({"name": "Ada", "email": email, "password": "correct horse"});
    let answer = server.http.post("/api/auth/register", &body).expect(201);
    server.http.with_bearer(answer["access_token"].as_str().unwrap())
}

pub(crate) fn call(id: &str, prompt: u32, completion: u32) -> Value {
    json!({
        "event_id": id, "request_type": "chat", "model": "gpt-3.5-turbo",
        "prompt_tokens": prompt, "completion_tokens": completion,
    })
}

#[track_caller]
pub(crate) fn wait_for_tokens(user: &Http, tokens: u64) {
    eventually(&format!("{tokens} tokens are counted"), || {
        let month = user.get("/api/tokens/me").expect(200);
        (month["current_period"]["tokens_used"] == tokens).then_some(())
    });
}

#[test]
fn a_user_registers_tracks_and_sees_it_everywhere() {
    let installation = Installation::new();
    let server = installation.start();
    let ada = register(&server, "ada@example.org");

    let first = ada.post("/api/tokens/me/track", &call("call-1", 800, 90)).expect(201);
    assert_eq!(first["total_tokens"], 890);
    assert_eq!(first["usage"]["remaining"], 100_000 - 890);
    let again = ada.post("/api/tokens/me/track", &call("call-1", 800, 90)).expect(200);
    assert_eq!(again["duplicate"], true);
    let other = ada.post("/api/tokens/me/track", &call("call-1", 801, 90)).expect(409);
    assert_eq!(other["code"], "event_id_reused");
    ada.post("/api/tokens/me/track", &call("call-2", 100, 10)).expect(201);

    let usage = ada.get("/api/usage/me").expect(200);
    assert_eq!(usage["tokens"]["used"], 1000);
    assert_eq!(usage["chat_messages"]["used"], 2);
    wait_for_tokens(&ada, 1000);
    let month = ada.get("/api/tokens/me").expect(200);
    assert_eq!(month["breakdown"]["chat"]["prompt_tokens"], 900);
    assert_eq!(month["models"]["gpt-3.5-turbo"], 1000);
    let history = ada.get("/api/tokens/me/history?limit=1").expect(200);
    assert_eq!(history["data"][0]["event_id"], "call-2");
    assert_eq!(history["has_more"], true);
    let cursor = history["next_cursor"].as_str().unwrap();
    let rest = ada.get(&format!("/api/tokens/me/history?limit=1&cursor={cursor}")).expect(200);
    assert_eq!(rest["data"][0]["event_id"], "call-1");

    let preferences = ada.put("/api/preferences/me", &json!({"theme": "dark"})).expect(200);
    assert_eq!(preferences["theme"], "dark");
    let subscription = ada.get("/api/users/me/subscription").expect(200);
    assert_eq!(subscription["plan"], "free");
    server.http.get("/api/tokens/me").expect(401);
}

#[test]
fn a_restart_keeps_everything_acknowledged_and_every_session() {
    let installation = Installation::new();
    let mut server = installation.start();
    let ada = register(&server, "ada@example.org");
    ada.post("/api/tokens/me/track", &call("call-1", 800, 90)).expect(201);
    server.kill();

    let server = installation.start();
    let ada = ada.at(&server.http.url);
    // The counter knows it at once, the ledger has it: the log's tail is counted before it opens.
    assert_eq!(ada.get("/api/usage/me").expect(200)["tokens"]["used"], 890);
    wait_for_tokens(&ada, 890);
    assert_eq!(
        ada.post("/api/tokens/me/track", &call("call-1", 800, 90)).expect(200)["duplicate"],
        true
    );
    let status = server.terminate();
    assert_eq!(status.code(), Some(0));

    let server = installation.start();
    assert_eq!(ada.at(&server.http.url).get("/api/usage/me").expect(200)["tokens"]["used"], 890);
    assert!(installation.run(&["reconcile"]).status.success());
}
