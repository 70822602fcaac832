//! Alerts through the whole program: raised with the count, sent as a webhook, seen and sent again.

use serde_json::Value;

use crate::receiver::Receiver;
use crate::server::{Installation, Server, eventually, text};
use crate::tour::{call, register, wait_for_tokens};

/// The file that messages are signed with.
fn secret_file(installation: &Installation) -> String {
    let path = installation.path().join("webhook.secret");
    std::fs::write(&path, Receiver::secret()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A server that tells this receiver.
fn start(installation: &Installation, receiver: &Receiver) -> Server {
    let secret = secret_file(installation);
    let url = receiver.url();
    installation.start_with(&["--alert-webhook", &url, "--alert-webhook-secret-file", &secret])
}

#[track_caller]
fn wait_for_state(installation: &Installation, state: &str) -> Vec<Value> {
    eventually(&format!("all are {state}"), || {
        let listed = installation.json(&["alerts", "list"]);
        let alerts = listed["alerts"].as_array().unwrap();
        let all = !alerts.is_empty() && alerts.iter().all(|one| one["delivery"]["state"] == state);
        all.then(|| alerts.clone())
    })
}

#[test]
fn a_user_near_a_limit_is_told_of_through_kills_and_a_receiver_that_fails() {
    let (installation, receiver) = (Installation::new(), Receiver::start());
    receiver.answer(500);
    let mut server = start(&installation, &receiver);
    let ada = register(&server, "ada@example.org");
    ada.post("/api/tokens/me/track", &call("call-1", 79_000, 1000)).expect(201);
    // Told, and not taken: what is counted stays so, and so does what is to be told. If it dies before
    // it has noted that, it is as if it had died before it told.
    eventually("it is told", || receiver.heard().first().cloned());
    server.kill();
    receiver.answer(200);
    let server = start(&installation, &receiver);
    let alerts = wait_for_state(&installation, "sent");
    assert_eq!(alerts.len(), 1);
    let alert = &alerts[0];
    assert_eq!((&alert["meter"], &alert["percent"]), (&"tokens".into(), &80.into()));
    assert_eq!((&alert["used"], &alert["limit"]), (&80_000.into(), &100_000.into()));
    let heard = receiver.heard();
    assert!(heard.len() >= 2, "{heard:?}");
    for message in &heard {
        assert_eq!(message.id, alert["id"].as_str().unwrap());
        assert_eq!(message.body["type"], "usage.threshold_reached");
        assert_eq!(message.body["data"]["user_id"], alert["user_id"]);
    }

    let ada = ada.at(&server.http.url);
    let mine = ada.get("/api/alerts/me").expect(200);
    assert_eq!(mine["data"][0]["id"], alert["id"]);
    assert!(mine["data"][0].get("delivery").is_none(), "{mine}");
    // The same record once more raises nothing.
    ada.post("/api/tokens/me/track", &call("call-1", 79_000, 1000)).expect(200);
    ada.post("/api/tokens/me/track", &call("call-2", 1, 0)).expect(201);
    wait_for_tokens(&ada, 80_001);
    assert_eq!(installation.json(&["alerts", "list"])["alerts"].as_array().unwrap().len(), 1);
    let of = |filter: &[&str]| {
        let listed = installation.json(&[&["alerts", "list"], filter].concat());
        listed["alerts"].as_array().unwrap().len()
    };
    let user = alert["user_id"].as_str().unwrap();
    assert_eq!((of(&["--user", user]), of(&["--delivery", "waiting"])), (1, 0));
    let nobody = "00000000-0000-7000-8000-000000000000";
    assert_eq!((of(&["--user", nobody]), of(&["--delivery", "sent"])), (0, 1));
    let listed = installation.json(&["alerts", "list"]);
    assert_eq!(listed["has_more"], false);
    let table = text(&installation.run(&["alerts", "list"]).stdout);
    assert!(table.contains("80000 of 100000 tokens"), "{table}");

    let metrics = server.ops.get("/metrics").text;
    assert!(metrics.contains("tokenmeter_alert_deliveries_total{outcome=\"sent\"} 1"), "{metrics}");
    assert_eq!(installation.json(&["reconcile"])["balanced"], true);
}

#[test]
fn what_was_given_up_is_sent_again_on_demand() {
    let (installation, receiver) = (Installation::new(), Receiver::start());
    let server = start(&installation, &receiver);
    let ada = register(&server, "ada@example.org");
    ada.post("/api/tokens/me/track", &call("call-1", 80_000, 0)).expect(201);
    wait_for_state(&installation, "sent");
    let ledger = rusqlite::Connection::open(installation.data_dir().join("ledger.db")).unwrap();
    ledger.execute("UPDATE alerts SET state = 'given_up'", []).unwrap();
    assert_eq!(installation.json(&["alerts", "retry"])["retried"], 1);
    wait_for_state(&installation, "sent");
    eventually("it is told again", || (receiver.heard().len() == 2).then_some(()));
    let heard = receiver.heard();
    assert_eq!(heard[0].id, heard[1].id);
    assert_eq!(installation.json(&["alerts", "retry"])["retried"], 0);
}

#[test]
fn a_list_that_is_cut_says_so() {
    let installation = Installation::new();
    let server = installation.start();
    let ada = register(&server, "ada@example.org");
    ada.post("/api/tokens/me/track", &call("call-1", 95_000, 0)).expect(201);
    wait_for_tokens(&ada, 95_000);
    for (limit, more) in [("1", true), ("2", false)] {
        let listed = installation.json(&["alerts", "list", "--limit", limit]);
        assert_eq!(listed["alerts"].as_array().unwrap().len().to_string(), limit);
        assert_eq!(listed["has_more"], more);
        let table = installation.run(&["alerts", "list", "--limit", limit]);
        assert_eq!(text(&table.stderr).contains("--limit"), more);
    }
}

#[test]
fn a_receiver_is_tried_before_it_is_needed() {
    let (installation, receiver) = (Installation::new(), Receiver::start());
    let (url, secret) = (receiver.url(), secret_file(&installation));
    let test = |url: &str| {
        let receiver = ["--alert-webhook", url, "--alert-webhook-secret-file", &secret];
        installation.run(&[&["alerts", "test", "--json"], &receiver[..]].concat())
    };
    assert_eq!(test(&url).status.code(), Some(0));
    assert_eq!(receiver.heard()[0].body["type"], "test");
    receiver.answer(302);
    let refused = test(&url);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("302"), "{}", text(&refused.stdout));
    // Nobody listens there.
    assert_eq!(test("http://127.0.0.1:9/").status.code(), Some(1));
    let none = installation.run(&["alerts", "test"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("--alert-webhook"), "{}", text(&none.stderr));
}

#[test]
fn a_receiver_without_a_secret_or_with_a_bad_one_is_refused_at_the_start() {
    let installation = Installation::new();
    let bad = installation.path().join("bad");
    std::fs::write(&bad, "whsec_short\n").unwrap();
    let (url, bad) = ("http://127.0.0.1:9/", bad.to_str().unwrap());
    for (arguments, said) in [
        (&["--alert-webhook", url] as &[&str], "name a --alert-webhook-secret-file"),
        (&["--alert-webhook-secret-file", bad], "is used with --alert-webhook only"),
        (&["--alert-webhook", url, "--alert-webhook-secret-file", bad], "24 to 64 random bytes"),
        (&["--alert-webhook", url, "--alert-webhook-secret-file", "/no"], "cannot be read"),
        (&["--alert-webhook", "there", "--alert-webhook-secret-file", bad], "must be a URL"),
    ] {
        let refused = installation.run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(text(&refused.stderr).contains(said), "{}", text(&refused.stderr));
    }
}
