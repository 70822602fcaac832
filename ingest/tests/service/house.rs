//! The service with everything behind it, and a client in front.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use edge::{App, Verifier, access_token, api_key};
use http::{HeaderMap, Request};
use ingest::{Ingest, LookUp, Parts};
use metering::accounts::{
    Accounts, ApiKey, ApiKeys, NewUser, Role, Scope, SigningKey, Subscriptions, UserId,
};
use metering::quota::{ModelCatalogue, PlanCatalogue, PlanName, QuotaCounter, Seeds, Synced};
use metering::time::{Clock, ManualClock, Timestamp};
use metering::usage::{
    EventId, EventSource, Horizon, LogRecord, Offset, Partition, Payload, UsageLedger, fold,
};
use serde_json::{Value, json};
use stores::memory::MemoryQuotaCounter;
use stores::sqlite::{SqliteAccounts, SqliteEventLog, SqliteLedger};
use tower::ServiceExt;

pub(crate) const OWN: &str = "/api/tokens/me/track";
pub(crate) const FOR: &str = "/api/tokens/track";
pub(crate) const BATCH: &str = "/api/tokens/track/batch";

/// What lies behind the service.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) log: Arc<SqliteEventLog>,
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) counter: Arc<MemoryQuotaCounter>,
    pub(crate) accounts: Arc<SqliteAccounts>,
}

impl Stores {
    async fn open(directory: &std::path::Path, clock: &Arc<ManualClock>) -> Self {
        let accounts = Arc::new(SqliteAccounts::open(&directory.join("accounts.db")).unwrap());
        let ledger = Arc::new(SqliteLedger::open(directory).unwrap());
        let log = SqliteEventLog::open(&directory.join("log.db"), clock.clone()).unwrap();
        let subscriptions: Arc<dyn Subscriptions> = accounts.clone();
        let seeds =
            Seeds { subscriptions, ledger: ledger.clone(), plans: plans(), clock: clock.clone() };
        let counter = MemoryQuotaCounter::new(Arc::new(seeds), clock.clone());
        ledger.take_over(Partition::SINGLE).await.unwrap();
        counter.open(Partition::SINGLE, Offset::new(0), clock.now()).await.unwrap();
        Self { log: Arc::new(log), ledger, counter: Arc::new(counter), accounts }
    }

    /// What stands in the log beyond what was counted.
    pub(crate) async fn waiting(&self) -> Vec<LogRecord> {
        let from = self.ledger.take_over(Partition::SINGLE).await.unwrap().position;
        self.log.read(Partition::SINGLE, from, 100_000, Duration::ZERO).await.unwrap()
    }

    /// Counts what waits, as the aggregator does.
    pub(crate) async fn count(&self) {
        let records = self.waiting().await;
        if records.is_empty() {
            return;
        }
        let seen = self.ledger.seen(Partition::SINGLE, Horizon::Ever, &records).await.unwrap();
        let flush = fold(Partition::SINGLE, Horizon::Ever, records, &seen).unwrap();
        let settled = flush.settled.clone();
        let committed = self.ledger.commit(flush).await.unwrap();
        let synced = Synced {
            partition: Partition::SINGLE,
            cursor: committed.cursor.position,
            watermark: self.log.watermark(Partition::SINGLE).await.unwrap().unwrap(),
            totals: committed.totals,
            settled,
        };
        assert!(self.counter.sync(&synced).await.unwrap());
    }
}

fn models() -> Arc<ModelCatalogue> {
    Arc::new(ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap())
}

fn plans() -> Arc<PlanCatalogue> {
    Arc::new(PlanCatalogue::from_toml(PlanCatalogue::DEFAULT_TOML, &models()).unwrap())
}

pub(crate) struct House {
    pub(crate) stores: Stores,
    pub(crate) clock: Arc<ManualClock>,
    app: App,
    signing: SigningKey,
    _directory: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem's code, after a look at what every problem has.
    pub(crate) fn refused(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.body["success"], false);
        assert_eq!(self.body["status"], self.status);
        assert_eq!(self.body["request_id"], self.header("x-request-id"));
        (self.status, self.body["code"].as_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|parts, _| parts).await
    }

    /// With other parts than the real ones.
    pub(crate) async fn with(change: impl FnOnce(Parts, &Stores) -> Parts) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at("2026-10-10T12:00:00Z".parse().unwrap()));
        let stores = Stores::open(directory.path(), &clock).await;
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let signing = SigningKey {
            id: "k1".to_owned(),
            pkcs8: key.to_pkcs8_der().unwrap().as_bytes().to_vec(),
            public: key.verifying_key().to_bytes(),
            created_at: clock.now(),
        };
        let accounts = &stores.accounts;
        let signers = vec![signing.clone()];
        let verifier = Verifier::new(accounts.clone(), accounts.clone(), signers, clock.clone());
        let parts = Parts {
            counter: stores.counter.clone(),
            log: stores.log.clone(),
            lookup: stores.ledger.clone(),
            accounts: accounts.clone(),
            models: models(),
            plans: plans(),
            clock: clock.clone(),
            verifier,
            look_up: LookUp::Every,
        };
        let ingest = Ingest::new(change(parts, &stores));
        let app = edge::app(ingest::routes().with_state(ingest), &[], clock.clone());
        Self { stores, clock, app, signing, _directory: directory }
    }

    pub(crate) async fn user(&self, plan: &str) -> User {
        self.create(plan, Role::User, None).await
    }

    pub(crate) async fn create(&self, plan: &str, role: Role, external: Option<&str>) -> User {
        let now = self.clock.now();
        let user = NewUser {
            id: UserId::generate(now),
            name: None,
            email: None,
            external_id: external.map(str::to_owned),
            role,
            password: None,
            plan: PlanName::new(plan),
            payment_method_id: None,
            now,
        };
        let id = Accounts::create(&*self.stores.accounts, user).await.unwrap().id;
        let ttl = Duration::from_secs(400 * 86_400);
        let token = access_token::issue(&self.signing, id, now, ttl).unwrap();
        User { id, token }
    }

    pub(crate) async fn key(&self, scopes: &[Scope]) -> String {
        let scopes: metering::accounts::Scopes = scopes.iter().copied().collect();
        let (id, text, digest) = api_key::issue([scopes.bits(); 8], [7; 32]);
        let (name, created_at) = ("service".to_owned(), self.clock.now());
        let key =
            ApiKey { id, name, scopes, digest, created_at, expires_at: None, revoked_at: None };
        ApiKeys::create(&*self.stores.accounts, key).await.unwrap();
        text
    }

    pub(crate) async fn post(&self, path: &str, credential: &str, body: &Value) -> Answer {
        self.send(path, credential, &[], body.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        path: &str,
        credential: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::post(path);
        if !credential.is_empty() {
            request = request.header("authorization", format!("Bearer {credential}"));
        }
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.app.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Event ids that wait in the log, in order.
    pub(crate) async fn logged(&self) -> Vec<String> {
        let records = self.stores.waiting().await;
        let id = |record: LogRecord| match record.payload {
            Payload::Event(admitted) => admitted.event.event_id.to_string(),
            Payload::Tick(_) | Payload::Undecodable { .. } => panic!("{record:?}"),
        };
        records.into_iter().map(id).collect()
    }

    pub(crate) fn at(&self, offset_seconds: i64) -> String {
        let now = self.clock.now().as_millis();
        Timestamp::from_millis(now + offset_seconds * 1000).to_string()
    }

    /// A UUIDv7 of that time.
    pub(crate) fn uuid_at(&self, offset_seconds: i64) -> String {
        let now = self.clock.now().as_millis();
        EventId::generate(Timestamp::from_millis(now + offset_seconds * 1000)).to_string()
    }
}

pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) token: String,
}

/// A chat event of `tokens` prompt tokens.
pub(crate) fn chat(tokens: u64) -> Value {
    json!({
        "request_type": "chat", "model": "gpt-3.5-turbo",
        "prompt_tokens": tokens, "completion_tokens": 0,
    })
}

/// The same with more fields, or other values.
pub(crate) fn with(mut event: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("{fields}") };
    event.as_object_mut().unwrap().extend(fields);
    event
}
