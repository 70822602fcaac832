//! Plans, locks and revocations in force at once, whoever changes them.

use serde_json::json;

use crate::server::{Installation, eventually};
use crate::tour::{call, register};

#[test]
fn a_limit_holds_and_a_better_plan_lifts_it_for_the_very_next_call() {
    let installation = Installation::new();
    let server = installation.start();
    let admin = server.http.with_bearer(&installation.key("admin"));
    let ada = register(&server, "ada@example.org");
    let id = ada.get("/api/users/me").expect(200)["id"].as_str().unwrap().to_owned();

    ada.post("/api/tokens/me/track", &call("a", 99_000, 1000)).expect(201);
    let refusal = ada.post("/api/tokens/me/track", &call("b", 1, 0)).expect(429);
    assert_eq!(refusal["code"], "token_limit_reached");
    assert_eq!(refusal["upgrade"]["plan"], "basic");
    admin.put(&format!("/api/users/{id}/subscription"), &json!({"plan": "basic"})).expect(200);
    ada.post("/api/tokens/me/track", &call("b", 1, 0)).expect(201);
}

#[test]
fn an_admin_made_beside_the_running_server_logs_in_and_locks_a_user() {
    let installation = Installation::new();
    let server = installation.start();
    let password = installation.path().join("password");
    std::fs::write(&password, "a long secret\n").unwrap();
    let password = password.to_str().unwrap();
    let made = installation.json(&[
        "user",
        "create",
        "--email",
        "root@example.org",
        "--name",
        "Root",
        "--role",
        "admin",
        "--password-file",
        password,
    ]);
    assert_eq!(made["role"], "admin");
    let login = json!({"email": "Root@example.org", "password": "a long secret"});
    let login = server.http.post("/api/auth/login", &login).expect(200);
    let admin = server.http.with_bearer(login["access_token"].as_str().unwrap());

    let ada = register(&server, "ada@example.org");
    let id = ada.get("/api/users/me").expect(200)["id"].as_str().unwrap().to_owned();
    ada.patch(&format!("/api/users/{id}"), &json!({"role": "admin"})).expect(403);
    admin.patch(&format!("/api/users/{id}"), &json!({"locked": true})).expect(200);
    eventually("the lock is in force", || (ada.get("/api/users/me").status == 401).then_some(()));
    let listed = installation.json(&["user", "list"]);
    assert_eq!(listed["users"].as_array().unwrap().len(), 2);
    assert_eq!(listed["users"][1]["locked"], true);
}

#[test]
fn a_user_without_a_password_cannot_log_in() {
    let installation = Installation::new();
    let server = installation.start();
    installation.json(&["user", "create", "--email", "a@example.org", "--name", "A"]);
    for password in ["", "password", "admin", "changeme"] {
        let login = json!({"email": "a@example.org", "password": password});
        let status = server.http.post("/api/auth/login", &login).status;
        assert!([401, 422].contains(&status), "{password:?}: {status}");
    }
}

#[test]
fn a_key_revoked_by_the_command_line_is_refused_within_seconds() {
    let installation = Installation::new();
    let server = installation.start();
    let made = installation.json(&["key", "create", "--name", "k", "--scope", "usage:read"]);
    let service = server.http.with_bearer(made["api_key"].as_str().unwrap());
    service.get("/api/tokens/admin/usage").expect(200);
    let id = made["id"].as_str().unwrap();
    assert_eq!(installation.json(&["key", "revoke", id])["revoked"], true);
    eventually("the key is refused", || {
        (service.get("/api/tokens/admin/usage").status == 401).then_some(())
    });
    assert_eq!(installation.run(&["key", "revoke", id]).status.code(), Some(1));
    assert_eq!(installation.json(&["key", "list"])["keys"][0]["id"], id);
}
