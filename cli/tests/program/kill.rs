//! The promise under kill -9: what was acknowledged is counted once, nothing is counted that was
//! not sent, and no limited user passes the limit.
//!
//! Clients keep their own list of what they were told. After a kill they send what is in doubt
//! again, with the same ids, to the next process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::http::Http;
use crate::server::{Installation, Server, eventually};

const CLIENTS: usize = 4;
/// On `free`: 100 000 tokens and 100 chat messages, which the load soon asks for.
const LIMITED: usize = 6;
/// On `professional`.
const UNLIMITED: usize = 6;

#[allow(clippy::disallowed_methods, reason = "settings of the test, not of the product")]
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// An event as a client sent it.
#[derive(Clone, Debug)]
struct Sent {
    user: usize,
    id: String,
    tokens: u64,
}

impl Sent {
    fn body(&self, users: &[String]) -> Value {
        json!({
            "user_id": users[self.user], "event_id": self.id, "request_type": "chat",
            "model": "gpt-3.5-turbo", "prompt_tokens": self.tokens, "completion_tokens": 0,
        })
    }
}

/// What a client was told at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Accepted,
    Duplicate,
    Refused,
}

struct Load {
    users: Vec<String>,
    key: Http,
    /// Where the present process listens.
    url: RwLock<String>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    told: Mutex<HashMap<String, (Sent, Told)>>,
}

impl Load {
    fn client(&self, number: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed ^ u64::try_from(number + 1).unwrap());
        let mut mine: Vec<Sent> = Vec::new();
        let mut made = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let size = if random.random_bool(0.5) { 1 } else { random.random_range(2..60) };
            let mut events: Vec<Sent> = Vec::new();
            for _ in 0..size {
                if !mine.is_empty() && random.random_bool(0.1) {
                    let again = mine[random.random_range(0..mine.len())].clone();
                    events.push(again);
                    continue;
                }
                made += 1;
                events.push(Sent {
                    user: random.random_range(0..LIMITED + UNLIMITED),
                    id: format!("{number}-{made}"),
                    tokens: random.random_range(0..3000),
                });
            }
            let told = if let [event] = &events[..] {
                vec![self.send_one(event)]
            } else {
                self.send_batch(&events)
            };
            for (event, told) in events.into_iter().zip(told) {
                self.note(&event, told);
                if told == Told::Accepted {
                    mine.push(event);
                }
            }
        }
    }

    fn note(&self, event: &Sent, now: Told) {
        let mut told = self.told.lock().unwrap();
        let before = told.get(&event.id).map(|(_, told)| *told);
        if matches!(before, Some(Told::Accepted | Told::Duplicate)) {
            assert_eq!(now, Told::Duplicate, "acknowledged before, now another thing: {event:?}");
            return;
        }
        told.insert(event.id.clone(), (event.clone(), now));
        if now != Told::Refused {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends the same body until there is an answer that is not "perhaps".
    fn send(&self, path: &str, body: &Value) -> (u16, Value) {
        eventually("a request is answered", || {
            let url = self.url.read().unwrap().clone();
            let answer = self.key.at(&url).try_call("POST", path, Some(body)).ok()?;
            // A body that was cut by the kill is no answer either.
            (answer.status != 503 && answer.body != Value::Null)
                .then_some((answer.status, answer.body))
        })
    }

    fn send_one(&self, event: &Sent) -> Told {
        let (status, body) = self.send("/api/tokens/track", &event.body(&self.users));
        match status {
            201 => Told::Accepted,
            200 => Told::Duplicate,
            429 => Told::Refused,
            _ => panic!("{event:?}: {status} {body}"),
        }
    }

    fn send_batch(&self, events: &[Sent]) -> Vec<Told> {
        let body = events.iter().map(|event| event.body(&self.users)).collect();
        let (status, body) = self.send("/api/tokens/track/batch?verbose=true", &Value::Array(body));
        assert_eq!(status, 200, "{body}");
        let results = body["results"].as_array().unwrap();
        assert_eq!(results.len(), events.len(), "{body}");
        results
            .iter()
            .map(|result| match result["status"].as_str().unwrap() {
                "accepted" => Told::Accepted,
                "duplicate" => Told::Duplicate,
                "rejected" if result["code"].as_str().unwrap().ends_with("limit_reached") => {
                    Told::Refused
                }
                other => panic!("{other}: {result}"),
            })
            .collect()
    }
}

/// Every event of a user as the server shows it: id, tokens, month.
pub(crate) fn history(admin: &Http, user: &str) -> Vec<(String, u64, String)> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/users/{user}/tokens/history?limit=200{cursor}");
        let page = admin.get(&path).expect(200);
        for row in page["data"].as_array().unwrap() {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let tokens = row["total_tokens"].as_u64().unwrap();
            rows.push((text("event_id"), tokens, text("occurred_at")[..7].to_owned()));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

/// R6: acknowledged ⊆ counted ⊆ sent, each once; refused not counted; limits held.
fn check(load: &Load, admin: &Http) {
    let told = load.told.lock().unwrap();
    let mut counted = 0;
    for (number, user) in load.users.iter().enumerate() {
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut months: HashMap<String, (u64, u64)> = HashMap::new();
        for (id, tokens, month) in history(admin, user) {
            let (sent, last) = told.get(&id).unwrap_or_else(|| panic!("{id} was never sent"));
            assert_eq!((sent.user, sent.tokens), (number, tokens), "{id}");
            assert_ne!(*last, Told::Refused, "{id} was refused and is counted");
            assert_eq!(seen.insert(id.clone(), tokens), None, "{id} is counted twice");
            let month = months.entry(month).or_default();
            *month = (month.0 + tokens, month.1 + 1);
            counted += 1;
        }
        if number < LIMITED {
            for (month, (tokens, requests)) in months {
                assert!(tokens <= 100_000 && requests <= 100, "{user} {month} {tokens} {requests}");
            }
        }
        let missing = told.values().find(|(sent, told)| {
            sent.user == number && *told != Told::Refused && !seen.contains_key(&sent.id)
        });
        assert!(missing.is_none(), "acknowledged and not counted: {missing:?}");
    }
    let refused = told.values().filter(|(_, told)| *told == Told::Refused).count();
    println!("{counted} events counted, {refused} refused");
    assert!(refused > 0, "no limit was reached: the load is too small to show anything");
}

fn make_users(server: &Server, key: &str) -> Vec<String> {
    let admin = server.http.with_bearer(key);
    let user = |number| {
        let plan = if number < LIMITED { "free" } else { "professional" };
        let body = json!({"external_id": format!("user-{number}"), "plan": plan});
        admin.post("/api/users", &body).expect(201)["id"].as_str().unwrap().to_owned()
    };
    (0..LIMITED + UNLIMITED).map(user).collect()
}

#[test]
fn whatever_is_killed_acknowledged_events_are_counted_once() {
    let kills = from_environment("TOKENMETER_TEST_KILLS").unwrap_or(5);
    let seed = from_environment("TOKENMETER_TEST_SEED").unwrap_or_else(rand::random);
    println!("TOKENMETER_TEST_SEED={seed}, {kills} kills");
    let mut random = StdRng::seed_from_u64(seed);
    let installation = Installation::new();
    let key = installation.key("admin");
    let mut server = installation.start();
    let load = Load {
        users: make_users(&server, &key),
        key: Http::new("").with_bearer(&key),
        url: RwLock::new(server.http.url.clone()),
        stop: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
        told: Mutex::new(HashMap::new()),
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let load = &load;
                    move || load.client(number, seed)
                })
            })
            .collect();
        for _ in 0..kills {
            let more = random.random_range(1..400);
            let wanted = load.acknowledged.load(Ordering::Relaxed) + more;
            eventually("clients go on", || {
                let there = load.acknowledged.load(Ordering::Relaxed) >= wanted;
                (there || clients.iter().any(|client| client.is_finished())).then_some(())
            });
            server.kill();
            if random.random_bool(0.3) {
                installation.start_and_kill(Duration::from_millis(random.random_range(0..60)));
            }
            server = installation.start();
            *load.url.write().unwrap() = server.http.url.clone();
        }
        let wanted = load.acknowledged.load(Ordering::Relaxed) + 500;
        eventually("clients go on after the last kill", || {
            let there = load.acknowledged.load(Ordering::Relaxed) >= wanted;
            (there || clients.iter().any(|client| client.is_finished())).then_some(())
        });
        load.stop.store(true, Ordering::Relaxed);
    });

    let admin = server.http.with_bearer(&key);
    let acknowledged = {
        let told = load.told.lock().unwrap();
        told.values().filter(|(_, told)| *told != Told::Refused).count()
    };
    eventually("everything acknowledged is counted", || {
        let usage = admin.get("/api/tokens/admin/usage").expect(200);
        let events = usage["totals"]["events"].as_u64().unwrap();
        (events >= u64::try_from(acknowledged).unwrap()).then_some(())
    });
    check(&load, &admin);
    let books = installation.json(&["reconcile"]);
    assert_eq!(books["balanced"], true, "{books}");
    server.terminate();
}
