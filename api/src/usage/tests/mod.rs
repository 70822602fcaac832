//! The usage endpoints through the router, over the single node's real stores.

mod admin;
mod alerts;
mod history;
mod monthly;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use edge::{App, Verifier};
use http::{HeaderMap, Request, StatusCode};
use metering::accounts::{Accounts, NewUser, Role, Scope, SigningKey, UserId};
use metering::quota::{ModelCatalogue, PlanCatalogue, PlanName, Seeds};
use metering::time::{Clock, ManualClock, Timestamp};
use metering::usage::{
    AdmittedEvent, AlertRules, EventId, Flag, Flags, Horizon, IdOrigin, LogRecord, ModelName,
    Partition, Payload, RequestType, SeenIds, TokenCounts, UsageEvent, UsageLedger, fold,
};
use serde_json::Value;
use stores::memory::MemoryQuotaCounter;
use stores::sqlite::{SqliteAccounts, SqliteLedger};
use tower::ServiceExt as _;

use crate::accounts::{LoginThrottle, Passwords, TokenIssuer, create_key, signing_keys};
use crate::state::{Api, Payments};

const NOW: &str = "2026-11-22T12:00:00.000Z";

struct World {
    app: App,
    accounts: Arc<SqliteAccounts>,
    ledger: SqliteLedger,
    plans: Arc<PlanCatalogue>,
    clock: Arc<ManualClock>,
    signing: SigningKey,
    _directory: tempfile::TempDir,
}

/// An answer, read whole.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        let json: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(json["success"], true);
        json
    }

    fn csv(&self) -> Vec<Vec<String>> {
        assert_eq!(self.status, 200, "{}", self.body);
        let media_type = self.headers["content-type"].to_str().unwrap();
        assert!(media_type.starts_with("text/csv"), "{media_type}");
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).from_reader(self.body.as_bytes());
        reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
    }

    /// The status, the code, and the parameter that is bad, if any.
    fn problem(&self) -> (u16, String, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let json: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(json["success"], false);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text(&json["code"]), text(&json["errors"][0]["parameter"]))
    }

    fn bad_parameter(&self) -> String {
        let (status, code, parameter) = self.problem();
        assert_eq!((status, code.as_str()), (422, "invalid_request"), "{}", self.body);
        parameter
    }
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW.parse().unwrap()));
        let accounts = SqliteAccounts::open(&directory.path().join("accounts.db")).unwrap();
        let accounts = Arc::new(accounts);
        let ledger = SqliteLedger::open(directory.path()).unwrap();
        let models = ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap();
        let plans =
            Arc::new(PlanCatalogue::from_toml(PlanCatalogue::DEFAULT_TOML, &models).unwrap());
        let signing = signing_keys(&*accounts, clock.now()).await.unwrap();
        let seeds = Seeds {
            subscriptions: accounts.clone(),
            ledger: Arc::new(ledger.clone()),
            plans: plans.clone(),
            clock: clock.clone(),
        };
        let api = Api {
            accounts: accounts.clone(),
            subscriptions: accounts.clone(),
            preferences: accounts.clone(),
            sessions: accounts.clone(),
            reports: Arc::new(ledger.file().clone()),
            alerts: Arc::new(ledger.file().clone()),
            counter: Arc::new(MemoryQuotaCounter::new(Arc::new(seeds), clock.clone())),
            plans: plans.clone(),
            models: Arc::new(models),
            verifier: Verifier::new(
                accounts.clone(),
                accounts.clone(),
                signing.clone(),
                clock.clone(),
            ),
            issuer: Arc::new(TokenIssuer::new(&signing, Duration::from_secs(900)).unwrap()),
            passwords: Arc::new(Passwords::new(1)),
            throttle: Arc::new(LoginThrottle::new(accounts.clone())),
            payments: Payments::None,
            clock: clock.clone(),
        };
        let app = edge::app(crate::routes().with_state(api), &[], clock.clone());
        let signing = signing[0].clone();
        Self { app, accounts, ledger, plans, clock, signing, _directory: directory }
    }

    /// A user on that plan, and their access token.
    async fn user(&self, plan: &str, role: Role) -> (UserId, String) {
        let now = self.clock.now();
        let id = UserId::generate(now);
        let new = NewUser {
            id,
            name: None,
            email: None,
            external_id: None,
            role,
            password: None,
            plan: PlanName::new(plan),
            payment_method_id: None,
            now,
        };
        self.accounts.create(new).await.unwrap();
        let ttl = Duration::from_secs(86_400);
        (id, edge::access_token::issue(&self.signing, id, now, ttl).unwrap())
    }

    async fn key(&self, scope: Scope) -> String {
        let scopes = [scope].into_iter().collect();
        let key = create_key(&*self.accounts, "test", scopes, None, self.clock.now()).await;
        key.unwrap().1
    }

    /// Counts these events, each of which the log took when it was received.
    async fn count(&self, events: Vec<UsageEvent>) {
        let start = self.ledger.take_over(Partition::SINGLE).await.unwrap().position;
        let records = events.into_iter().enumerate().map(|(index, event)| {
            let over_limit = event.event_id.as_str().starts_with("over");
            let admitted = AdmittedEvent {
                id_digest: event.id_digest(),
                content_digest: event.content_digest(),
                plan: PlanName::new("free"),
                admitted_at: event.received_at,
                flags: if over_limit {
                    Flags::default().with(Flag::OverLimit)
                } else {
                    Flags::default()
                },
                over_hold: 0,
                event,
            };
            LogRecord {
                offset: start.plus(u64::try_from(index).unwrap()),
                log_time: admitted.admitted_at,
                payload: Payload::Event(Box::new(admitted)),
            }
        });
        let mut flush =
            fold(Partition::SINGLE, Horizon::Ever, records.collect(), &SeenIds::new()).unwrap();
        flush.watched = AlertRules::of(&self.plans).watched(&flush);
        self.ledger.commit(flush).await.unwrap();
    }

    async fn get(&self, path: &str, credential: &str) -> Reply {
        self.ask(path, credential, None).await
    }

    async fn get_csv(&self, path: &str, credential: &str) -> Reply {
        self.ask(path, credential, Some("text/csv")).await
    }

    async fn ask(&self, path: &str, credential: &str, accept: Option<&str>) -> Reply {
        let mut request = Request::get(path);
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        self.send(request, credential).await
    }

    async fn post(&self, path: &str, credential: &str) -> Reply {
        self.send(Request::post(path), credential).await
    }

    async fn send(&self, request: http::request::Builder, credential: &str) -> Reply {
        let request = request.header("authorization", format!("Bearer {credential}"));
        let request = request.body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Reply { status: parts.status, headers: parts.headers, body }
    }
}

/// A chat on `gpt-4o-mini` of 10 and 5 tokens.
fn event(user: UserId, id: &str, occurred_at: &str) -> UsageEvent {
    let occurred_at: Timestamp = occurred_at.parse().unwrap();
    UsageEvent {
        user_id: user,
        event_id: EventId::new(id).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-4o-mini"),
        tokens: TokenCounts { prompt: 10, completion: 5, cached: 0, reasoning: 0 },
        occurred_at,
        occurred_at_given: true,
        received_at: occurred_at.plus(Duration::from_secs(1)),
        reservation_id: None,
        metadata: None,
    }
}

fn tokens(prompt: u32, completion: u32) -> TokenCounts {
    TokenCounts { prompt, completion, cached: prompt / 2, reasoning: completion / 2 }
}

#[tokio::test]
async fn each_call_is_open_to_those_whom_the_contract_names() {
    let world = World::new().await;
    let (id, user) = world.user("free", Role::User).await;
    let (_, other) = world.user("free", Role::User).await;
    let (_, admin) = world.user("free", Role::Admin).await;
    let reader = world.key(Scope::UsageRead).await;
    let ingest = world.key(Scope::Ingest).await;
    let admin_key = world.key(Scope::Admin).await;
    let callers = ["none", &user, &other, &admin, &reader, &ingest, &admin_key];
    let of_user = |path: &str| format!("/api/users/{id}{path}");
    for (path, expected) in [
        ("/api/tokens/me".to_owned(), [401, 200, 200, 200, 403, 403, 403]),
        ("/api/tokens/me/history".to_owned(), [401, 200, 200, 200, 403, 403, 403]),
        (of_user("/tokens"), [401, 403, 403, 200, 200, 403, 200]),
        (of_user("/tokens/history"), [401, 403, 403, 200, 200, 403, 200]),
        ("/api/tokens/admin/usage".to_owned(), [401, 403, 403, 200, 200, 403, 200]),
        ("/api/alerts/me".to_owned(), [401, 200, 200, 200, 403, 403, 403]),
        ("/api/alerts".to_owned(), [401, 403, 403, 200, 200, 403, 200]),
    ] {
        for (caller, status) in callers.into_iter().zip(expected) {
            let reply = world.get(&path, caller).await;
            assert_eq!(reply.status, status, "{path} {}", reply.body);
            // Who may not is told so before anything about the request.
            if status != 200 {
                let odd = format!("{path}?limit=0&period=x&from=x");
                assert_eq!(world.ask(&odd, caller, Some("image/png")).await.status, status);
            }
        }
    }
}

#[tokio::test]
async fn a_user_who_is_not_there_is_404() {
    let world = World::new().await;
    let reader = world.key(Scope::UsageRead).await;
    let nobody = UserId::generate(world.clock.now());
    let (erased, _) = world.user("free", Role::User).await;
    world.accounts.erase(erased, world.clock.now()).await.unwrap();
    for user in [nobody.to_string(), erased.to_string(), "me-not".to_owned()] {
        for path in ["tokens", "tokens/history"] {
            let reply = world.get(&format!("/api/users/{user}/{path}"), &reader).await;
            assert_eq!(reply.problem().0, 404, "{user} {path}");
        }
    }
}

#[tokio::test]
async fn a_format_that_is_not_there_is_406() {
    let world = World::new().await;
    let (_, admin) = world.user("free", Role::Admin).await;
    for path in ["/api/tokens/me/history", "/api/tokens/admin/usage"] {
        let reply = world.ask(path, &admin, Some("text/html")).await;
        assert_eq!(reply.problem(), (406, "not_acceptable".to_owned(), String::new()));
    }
}
