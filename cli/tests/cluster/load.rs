//! Clients that send usage, remember what they were told, and send again whatever is in doubt.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::cluster::Serving;
use crate::http::{Answer, Http};
use crate::waiting::{PATIENCE, eventually};

const CLIENTS: usize = 3;

/// Users on `free`: 100 000 tokens and 100 chat messages, which the load soon asks for.
const LIMITED: usize = 8;

/// Users on `professional`.
const UNLIMITED: usize = 16;

pub(crate) const TOKENS_OF_FREE: u64 = 100_000;
pub(crate) const REQUESTS_OF_FREE: u64 = 100;
/// Percentages of both at which an alert is raised.
pub(crate) const ALERTS_OF_FREE: [u64; 3] = [80, 95, 100];

/// Between a client's requests: the machine is to be busy with faults, not with load.
const PAUSE: Duration = Duration::from_millis(4);

/// Before something is sent again.
const RETRY: Duration = Duration::from_millis(50);

/// An event as a client sent it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Its place among the load's users.
    pub(crate) user: usize,
    pub(crate) id: String,
    pub(crate) tokens: u64,
    /// The reservation that it settles.
    pub(crate) reservation: Option<String>,
}

/// What a client was told at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// 201, 200, accepted, duplicate.
    Acknowledged,
    /// A limit is reached.
    Refused,
}

/// A user of the load.
#[derive(Clone, Debug)]
pub(crate) struct LoadUser {
    pub(crate) id: String,
    pub(crate) is_limited: bool,
}

/// Clients at work. They end, in the middle of a request, when it is dropped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What clients send beside single events.
#[derive(Clone, Copy)]
struct Kinds {
    /// Half of the requests hold several events.
    batches: bool,
    /// Some events have a hold.
    holds: bool,
}

const ALL_KINDS: Kinds = Kinds { batches: true, holds: true };

struct Shared {
    users: Vec<LoadUser>,
    /// The public addresses of the ingests.
    doors: Vec<Http>,
    kinds: Kinds,
    stop: AtomicBool,
    /// Not even what was begun is finished.
    abandoned: AtomicBool,
    acknowledged: AtomicU64,
    retries: AtomicU64,
    told: Mutex<HashMap<String, (Sent, Told)>>,
}

/// What the clients sent, and what they were told of it.
pub(crate) struct Outcome {
    pub(crate) users: Vec<LoadUser>,
    pub(crate) told: HashMap<String, (Sent, Told)>,
    /// How often something was sent again because it was not answered, or with 503.
    pub(crate) retries: u64,
}

impl Load {
    /// Makes users, and starts clients that send through all ingests.
    pub(crate) fn start(serving: &Serving) -> Self {
        Self::of(serving, make_users(&serving.api.http, LIMITED, UNLIMITED), ALL_KINDS)
    }

    /// Of nobody who is ever refused.
    pub(crate) fn unlimited(serving: &Serving) -> Self {
        Self::of(serving, make_users(&serving.api.http, 0, UNLIMITED), ALL_KINDS)
    }

    /// The same without holds, which need the counter.
    pub(crate) fn unlimited_without_holds(serving: &Serving) -> Self {
        let kinds = Kinds { holds: false, ..ALL_KINDS };
        Self::of(serving, make_users(&serving.api.http, 0, UNLIMITED), kinds)
    }

    /// Of users most of whom are at their limits after some 700 events.
    pub(crate) fn crowded(serving: &Serving) -> Self {
        Self::of(serving, make_users(&serving.api.http, LIMITED, 2), ALL_KINDS)
    }

    /// The same with each event by itself: a batch is of all partitions, and some ingest must take it
    /// whole.
    pub(crate) fn crowded_one_by_one(serving: &Serving) -> Self {
        let kinds = Kinds { batches: false, ..ALL_KINDS };
        Self::of(serving, make_users(&serving.api.http, LIMITED, 2), kinds)
    }

    fn of(serving: &Serving, users: Vec<LoadUser>, kinds: Kinds) -> Self {
        let shared = Arc::new(Shared {
            users,
            doors: serving.ingests.iter().map(|ingest| ingest.http.clone()).collect(),
            kinds,
            stop: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            told: Mutex::default(),
        });
        let clients = (0..CLIENTS).map(|number| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.client(number))
        });
        let clients = clients.collect();
        Self { shared, clients }
    }

    /// How many events are acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How often something was sent again so far.
    pub(crate) fn retries(&self) -> u64 {
        self.shared.retries.load(Ordering::Relaxed)
    }

    pub(crate) fn users(&self) -> &[LoadUser] {
        &self.shared.users
    }

    /// Waits until that many more events are acknowledged: the service answers.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64) {
        let wanted = self.acknowledged() + more;
        eventually("clients are acknowledged", || {
            // One that failed is told by `finish`.
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            (self.acknowledged() >= wanted || failed).then_some(())
        });
    }

    /// Stops once every event is answered for good.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
        let told = std::mem::take(&mut *self.shared.told.lock().unwrap());
        let retries = self.shared.retries.load(Ordering::Relaxed);
        Outcome { users: self.shared.users.clone(), told, retries }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.abandoned.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // The test has failed already, for another reason.
            drop(client.join());
        }
    }
}

/// Users on `free` before users on `professional`.
pub(crate) fn make_users(admin: &Http, limited: usize, unlimited: usize) -> Vec<LoadUser> {
    // Several loads follow each other on one installation.
    static MADE: AtomicU64 = AtomicU64::new(0);
    let user = |number: usize| {
        let is_limited = number < limited;
        let plan = if is_limited { "free" } else { "professional" };
        let name = format!("user-{}", MADE.fetch_add(1, Ordering::Relaxed));
        let body = json!({"external_id": name, "plan": plan});
        let made = admin.post("/api/users", &body).expect(201);
        LoadUser { id: made["id"].as_str().unwrap().to_owned(), is_limited }
    };
    (0..limited + unlimited).map(user).collect()
}

impl Sent {
    pub(crate) fn body(&self, users: &[LoadUser]) -> Value {
        let mut body = json!({
            "user_id": users[self.user].id, "event_id": self.id, "request_type": "chat",
            "model": "gpt-3.5-turbo", "prompt_tokens": self.tokens, "completion_tokens": 0,
        });
        if let Some(id) = &self.reservation {
            body["reservation_id"] = id.as_str().into();
        }
        body
    }
}

impl Shared {
    fn client(&self, number: usize) {
        let mut random = StdRng::seed_from_u64(u64::try_from(number).unwrap());
        let mut mine: Vec<Sent> = Vec::new();
        let mut made = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let several = self.kinds.batches && random.random_bool(0.5);
            let size = if several { random.random_range(2..40) } else { 1 };
            let mut events: Vec<Sent> = Vec::new();
            for _ in 0..size {
                if !mine.is_empty() && random.random_bool(0.1) {
                    events.push(mine[random.random_range(0..mine.len())].clone());
                    continue;
                }
                made += 1;
                events.push(Sent {
                    user: random.random_range(0..self.users.len()),
                    id: format!("{number}-{made}"),
                    tokens: random.random_range(0..3000),
                    reservation: None,
                });
                if size == 1
                    && self.kinds.holds
                    && random.random_bool(0.3)
                    && let Some(event) = events.last_mut()
                {
                    self.reserve(event, number, &mut random);
                }
            }
            let Some(told) = self.send(&events, number) else { return };
            for (event, told) in events.into_iter().zip(told) {
                self.note(&event, told);
                if told == Told::Acknowledged {
                    mine.push(event);
                }
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn note(&self, event: &Sent, now: Told) {
        let mut told = self.told.lock().unwrap();
        if let Some((_, before)) = told.insert(event.id.clone(), (event.clone(), now)) {
            assert_eq!(before, now, "told otherwise before: {event:?}");
        } else if now == Told::Acknowledged {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Holds what an event will need, perhaps more. What becomes of the hold is chance: the event
    /// settles it; or it is given back before, and helps the event no more; or it is left to expire.
    fn reserve(&self, event: &mut Sent, client: usize, random: &mut StdRng) {
        let user = &self.users[event.user].id;
        let id = format!("hold-{}", event.id);
        let fate = random.random_range(0..4);
        let body = json!({
            "user_id": user, "reservation_id": id, "model": "gpt-3.5-turbo", "request_type": "chat",
            "tokens": event.tokens + random.random_range(0..500),
            "expires_in": if fate == 0 { 1 } else { 600 },
        });
        let path = "/api/tokens/reservations";
        let Some(answer) = self.until_answered(path, &body, client) else { return };
        match answer.status {
            200 | 201 => {}
            // It does not fit; the event itself may.
            429 => return,
            other => panic!("{body}: {other} {}", answer.body),
        }
        if fate == 1 {
            let release = format!("{path}/{id}/release");
            let body = json!({"user_id": user});
            let Some(answer) = self.until_answered(&release, &body, client) else { return };
            // The hold is gone with a Redis that was lost, or since an answer was.
            assert!([200, 404].contains(&answer.status), "{id}: {}", answer.body);
        }
        event.reservation = (fate > 0).then_some(id);
    }

    /// What an ingest says of these events. `None`: abandoned.
    fn send(&self, events: &[Sent], client: usize) -> Option<Vec<Told>> {
        let (path, body) = if let [event] = events {
            ("/api/tokens/track", event.body(&self.users))
        } else {
            let bodies = events.iter().map(|event| event.body(&self.users)).collect();
            ("/api/tokens/track/batch?verbose=true", Value::Array(bodies))
        };
        let answer = self.until_answered(path, &body, client + events.len())?;
        Some(read(answer.status, &answer.body, events))
    }

    /// Sends the same body to one ingest after another until there is an answer that is not
    /// "perhaps". `None`: abandoned.
    fn until_answered(&self, path: &str, body: &Value, first_door: usize) -> Option<Answer> {
        let deadline = Instant::now() + PATIENCE;
        for door in self.doors.iter().cycle().skip(first_door) {
            if let Ok(answer) = door.try_call("POST", path, Some(body)) {
                // A body that was cut by a kill is no answer either.
                if answer.status != 503 && answer.body != Value::Null {
                    return Some(answer);
                }
            }
            if self.abandoned.load(Ordering::Relaxed) {
                return None;
            }
            assert!(Instant::now() < deadline, "never answered: {body}");
            self.retries.fetch_add(1, Ordering::Relaxed);
            std::thread::park_timeout(RETRY);
        }
        None
    }
}

/// What an answer says of each event.
fn read(status: u16, body: &Value, events: &[Sent]) -> Vec<Told> {
    match status {
        429 if events.len() == 1 => return vec![Told::Refused],
        201 | 200 if events.len() == 1 => return vec![Told::Acknowledged],
        200 => {}
        _ => panic!("{events:?}: {status} {body}"),
    }
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), events.len(), "{body}");
    let told = results.iter().map(|result| match result["status"].as_str().unwrap() {
        "accepted" | "duplicate" => Told::Acknowledged,
        "rejected" if result["code"].as_str().unwrap().ends_with("limit_reached") => Told::Refused,
        other => panic!("{other}: {result}"),
    });
    told.collect()
}
