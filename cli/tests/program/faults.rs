//! The program when the disk is full, when another process keeps a file locked, and when a file is
//! damaged.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Answer, Http};
use crate::kill::history;
use crate::server::{Installation, Server, eventually, text};

const CLIENTS: u64 = 4;

/// Twice this is what an idle server's files take; a few hundred events fill the rest.
const FULL: &str = "600000";

/// From now on no file of the server grows beyond so many bytes.
fn limit_files(server: &Server, bytes: &str) {
    let pid = server.pid().to_string();
    let limit = format!("--fsize={bytes}:unlimited");
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

fn event(user: &str, id: &str) -> Value {
    json!({
        "user_id": user, "event_id": id, "request_type": "chat", "model": "gpt-3.5-turbo",
        "prompt_tokens": 7, "completion_tokens": 3, "metadata": {"note": "x".repeat(500)},
    })
}

/// What clients sent, and what of it they were told is recorded.
#[derive(Default)]
struct Sent {
    all: Mutex<BTreeSet<String>>,
    acknowledged: Mutex<BTreeSet<String>>,
    refused: AtomicU64,
}

impl Sent {
    /// Every answer is one of two: all of it is recorded, or 503 and perhaps.
    fn note(&self, ids: &[String], answer: &Answer) {
        self.all.lock().unwrap().extend(ids.iter().cloned());
        match answer.status {
            200 | 201 => self.acknowledged.lock().unwrap().extend(ids.iter().cloned()),
            503 => {
                assert_eq!(answer.body["code"], "unavailable", "{}", answer.text);
                assert!(!answer.text.contains("disk"), "internals: {}", answer.text);
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            _ => panic!("{}: {}", answer.status, answer.text),
        }
    }

    fn send(&self, key: &Http, user: &str, ids: &[String]) -> Answer {
        let events: Vec<_> = ids.iter().map(|id| event(user, id)).collect();
        let answer = match &events[..] {
            [one] => key.post("/api/tokens/track", one),
            _ => key.post("/api/tokens/track/batch", &Value::Array(events)),
        };
        self.note(ids, &answer);
        answer
    }

    /// Clients send single events and batches until they were refused some more times.
    fn fill(&self, key: &Http, user: &str, phase: &str) {
        let enough = self.refused.load(Ordering::Relaxed) + 40;
        let deadline = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || {
                    for round in 0.. {
                        let size = if round % 2 == 0 { 1 } else { 25 };
                        let id = |place| format!("{phase}-{client}-{round}-{place}");
                        let ids: Vec<_> = (0..size).map(id).collect();
                        self.send(key, user, &ids);
                        if self.refused.load(Ordering::Relaxed) >= enough {
                            return;
                        }
                        assert!(Instant::now() < deadline, "the disk never filled up");
                    }
                });
            }
        });
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_that_was_acknowledged() {
    let installation = Installation::beneath_file_limits();
    let admin = installation.key("admin");
    let mut server = installation.start();
    let key = server.http.with_bearer(&admin);
    let user = key.post("/api/users", &json!({"external_id": "u", "plan": "professional"}));
    let user = user.expect(201)["id"].as_str().unwrap().to_owned();
    let sent = Sent::default();

    limit_files(&server, FULL);
    sent.fill(&key, &user, "first");
    assert!(!sent.acknowledged.lock().unwrap().is_empty());
    // A small event may still find room after a batch found none: what is told is about the last.
    let mut more = (0..).map(|round| [format!("last-{round}")]);
    eventually("the last one is refused", || {
        (sent.send(&key, &user, &more.next()?).status == 503).then_some(())
    });
    let degraded = || server.ops.get("/health/ready").body["degraded"].to_string();
    assert!(degraded().contains("event_log"), "{}", degraded());
    // Reading goes on.
    key.get(&format!("/api/users/{user}/tokens/history")).expect(200);

    limit_files(&server, "unlimited");
    let after = ["after".to_owned()];
    eventually("it records again", || (sent.send(&key, &user, &after).status != 503).then_some(()));
    eventually("it is ready again", || {
        (server.ops.get("/health/ready").status == 200).then_some(())
    });
    assert!(!degraded().contains("event_log"), "{}", degraded());

    limit_files(&server, FULL);
    sent.fill(&key, &user, "second");
    server.kill();
    let server = installation.start();
    let key = server.http.with_bearer(&admin);
    let all: Vec<String> = sent.all.lock().unwrap().iter().cloned().collect();
    let acknowledged = sent.acknowledged.lock().unwrap().clone();
    println!("{} sent, {} acknowledged", all.len(), acknowledged.len());
    let counted = || -> Vec<String> {
        let ids = history(&key, &user).into_iter().map(|(id, _, _)| id);
        ids.collect()
    };
    eventually("everything acknowledged is counted", || {
        let counted: BTreeSet<String> = counted().into_iter().collect();
        acknowledged.is_subset(&counted).then_some(())
    });

    // What was refused is sent again with the same ids: each is there once, whatever became of it.
    for ids in all.chunks(500) {
        assert_eq!(sent.send(&key, &user, ids).status, 200);
    }
    eventually("everything is counted", || (counted().len() >= all.len()).then_some(()));
    let mut once = counted();
    once.sort();
    assert_eq!(once, all);
    let books = installation.json(&["reconcile"]);
    assert_eq!(books["balanced"], true, "{books}");
    assert!(server.terminate().success());
}

#[test]
fn a_locked_log_is_503_in_bounded_time_and_then_goes_on() {
    let installation = Installation::new();
    let admin = installation.key("admin");
    let server = installation.start();
    let key = server.http.with_bearer(&admin);
    let user = key.post("/api/users", &json!({"external_id": "u"})).expect(201);
    let user = user["id"].as_str().unwrap();
    let other = rusqlite::Connection::open(installation.data_dir().join("log.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let started = Instant::now();
    let refused = key.post("/api/tokens/track", &event(user, "a"));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(refused.expect(503)["code"], "unavailable");
    other.execute_batch("ROLLBACK").unwrap();
    // Its first try may still be in flight, so it is new or a repeat.
    let again = key.post("/api/tokens/track", &event(user, "a"));
    assert!(matches!(again.status, 200 | 201), "{}", again.text);
    eventually("it is counted", || (history(&key, user).len() == 1).then_some(()));
}

#[test]
fn a_damaged_file_is_refused_with_its_name_and_what_to_do() {
    for file in ["log.db", "ledger.db", "accounts.db"] {
        let installation = Installation::new();
        assert!(installation.start().terminate().success());
        let path = installation.data_dir().join(file);
        let damaged = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        damaged.write_all_at(&[0x55; 4096], 0).unwrap();
        let ended = installation.run(&["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
        assert_eq!(ended.status.code(), Some(1));
        let complaint = text(&ended.stderr);
        assert!(complaint.contains(&format!("{file} is damaged")), "{complaint}");
        assert!(complaint.contains("backup"), "{complaint}");
        assert!(!complaint.contains("panicked"), "{complaint}");
    }
}
