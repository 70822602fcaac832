//! One service on a data directory of its own, and calls to it.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::accounts::{
    LoginThrottle, Passwords, TokenIssuer, UserRequest, create_key, create_user, signing_keys,
};
use api::{Api, Payments};
use async_trait::async_trait;
use axum::body::Body;
use edge::{App, ClientAddress, Verifier};
use http::{HeaderMap, Request, StatusCode};
use metering::Unavailable;
use metering::accounts::{Role, Scope, UserId};
use metering::quota::{
    Admission, ModelCatalogue, PlanCatalogue, QuotaCounter, Seeds, Totals, Trust, Verdict,
};
use metering::time::{Clock, ManualClock, Period, Timestamp};
use metering::usage::{
    Analytics, AnalyticsQuery, ContentDigest, EventId, HistoryQuery, HistoryRow, IdDigest, Known,
    LedgerLookup, ModelName, MonthlyUsage, Offset, Partition, RequestType, TokenCounts, TotalsAt,
    UsageReports,
};
use serde_json::{Value, json};
use stores::memory::MemoryQuotaCounter;
use stores::sqlite::{LedgerFile, SqliteAccounts};
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A running service.
pub(crate) struct Service {
    pub(crate) api: Api,
    pub(crate) store: Arc<SqliteAccounts>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ledger: Arc<EmptyLedger>,
    app: App,
    _directory: TempDir,
}

/// Who logged in.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Status and code of a problem, `""` for a success.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["code"].as_str().unwrap_or(""))
    }

    /// The pointer or parameter of the first bad value.
    pub(crate) fn at(&self) -> &str {
        let first = &self.body["errors"][0];
        first["pointer"].as_str().or(first["parameter"].as_str()).unwrap_or("")
    }
}

/// A request to be sent.
pub(crate) struct Call<'a> {
    service: &'a Service,
    request: http::request::Builder,
    body: Option<Value>,
    client: &'static str,
}

impl Call<'_> {
    pub(crate) fn bearer(mut self, credential: &str) -> Self {
        self.request = self.request.header("authorization", format!("Bearer {credential}"));
        self
    }

    pub(crate) fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(crate) fn from(mut self, client: &'static str) -> Self {
        self.client = client;
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let body = self.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let client: IpAddr = self.client.parse().unwrap();
        let request = self.request.header("content-type", "application/json");
        let request = request.extension(ClientAddress(client)).body(body).unwrap();
        let response = self.service.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        if !body.as_object().unwrap().contains_key("keys") {
            assert_eq!(body["success"], parts.status.is_success(), "{body}");
        }
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with_payments(Payments::None).await
    }

    pub(crate) async fn with_payments(payments: Payments) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteAccounts::open(&directory.path().join("accounts.db")).unwrap();
        let store = Arc::new(store);
        let clock = Arc::new(ManualClock::at("2026-10-15T12:00:00Z".parse().unwrap()));
        let models = ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap();
        let plans = PlanCatalogue::from_toml(PlanCatalogue::DEFAULT_TOML, &models).unwrap();
        let plans = Arc::new(plans);
        let ledger = Arc::new(EmptyLedger::default());
        let seeds = Seeds {
            subscriptions: store.clone(),
            ledger: ledger.clone(),
            plans: plans.clone(),
            clock: clock.clone(),
        };
        let counter = MemoryQuotaCounter::new(Arc::new(seeds), clock.clone());
        counter.open(Partition::SINGLE, Offset::new(0), clock.now()).await.unwrap();
        let keys = signing_keys(&*store, clock.now()).await.unwrap();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let api = Api {
            accounts: store.clone(),
            subscriptions: store.clone(),
            preferences: store.clone(),
            sessions: store.clone(),
            reports: ledger.clone(),
            alerts: Arc::new(LedgerFile::open(directory.path()).unwrap()),
            counter: Arc::new(counter),
            plans,
            models: Arc::new(models),
            verifier: Verifier::new(store.clone(), store.clone(), keys.clone(), clock.clone()),
            issuer: Arc::new(TokenIssuer::new(&keys, Duration::from_secs(900)).unwrap()),
            passwords: Arc::new(Passwords::new(cores)),
            throttle: Arc::new(LoginThrottle::new(store.clone())),
            payments,
            clock: clock.clone(),
        };
        let app = edge::app(api::routes().with_state(api.clone()), &[], clock.clone());
        Self { api, store, clock, ledger, app, _directory: directory }
    }

    pub(crate) fn call(&self, method: &str, path: &str) -> Call<'_> {
        let request = Request::builder().method(method).uri(path);
        Call { service: self, request, body: None, client: "192.0.2.1" }
    }

    pub(crate) async fn register(&self, email: &str) -> Session {
        let body = json!({"name": "Ada", "email": email, "password": PASSWORD});
        let answer = self.call("POST", "/api/auth/register").json(body).send().await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        session(&answer.body)
    }

    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Answer {
        let body = json!({"email": email, "password": password});
        self.call("POST", "/api/auth/login").json(body).send().await
    }

    /// An admin, made as the command line makes one.
    pub(crate) async fn admin(&self) -> Session {
        let request = UserRequest {
            email: Some("root@example.com".into()),
            password: Some(PASSWORD.into()),
            role: Role::Admin,
            ..UserRequest::default()
        };
        let user = request.check(&self.api.plans).unwrap();
        create_user(&*self.store, &self.api.passwords, user, self.clock.now()).await.unwrap();
        session(&self.log_in("root@example.com", PASSWORD).await.body)
    }

    /// An API key's text, made as the command line makes one.
    pub(crate) async fn key(&self, scope: Scope) -> String {
        let scopes = [scope].into_iter().collect();
        create_key(&*self.store, "test", scopes, None, self.clock.now()).await.unwrap().1
    }

    /// Asks the counter for `tokens` of a chat; whether they were granted.
    pub(crate) async fn track(&self, user: &str, model: &str, tokens: u32) -> bool {
        let user_id: UserId = user.parse().unwrap();
        let event_id = EventId::generate(self.clock.now());
        let (model, counts) =
            (ModelName::new(model), TokenCounts { prompt: tokens, ..TokenCounts::default() });
        let asked = Admission {
            user_id,
            period: Period::of(self.clock.now()),
            id_digest: IdDigest::of_event(user_id, &event_id),
            content_digest: ContentDigest::of_event(RequestType::Chat, &model, counts),
            request_type: RequestType::Chat,
            tokens: u64::from(tokens),
            tier: self.api.models.tier_of(model.as_str()).unwrap(),
            trust: Trust::User,
            settles: None,
            barred: false,
        };
        let verdicts = self.api.counter.admit(&[asked]).await.unwrap();
        matches!(verdicts[0], Verdict::Granted(_))
    }
}

pub(crate) fn session(body: &Value) -> Session {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
    Session {
        id: text(&body["user"]["id"]),
        access_token: text(&body["access_token"]),
        refresh_token: text(&body["refresh_token"]),
    }
}

/// A ledger in which nothing was ever counted; remembers whose metadata were erased.
#[derive(Default)]
pub(crate) struct EmptyLedger {
    pub(crate) erased: Mutex<Vec<UserId>>,
}

#[async_trait]
impl LedgerLookup for EmptyLedger {
    async fn known(&self, ids: &[(UserId, IdDigest)]) -> Result<Known, Unavailable> {
        Ok(Known { cursor: Offset::new(0), found: vec![None; ids.len()] })
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        Ok(vec![TotalsAt::default(); users.len()])
    }
}

#[async_trait]
impl UsageReports for EmptyLedger {
    async fn monthly(&self, _: UserId, period: Period) -> Result<MonthlyUsage, Unavailable> {
        Ok(MonthlyUsage {
            period,
            totals: Totals::default(),
            breakdown: Default::default(),
            models: Default::default(),
            daily: vec![],
            as_of: None::<Timestamp>,
        })
    }

    async fn history(&self, _: &HistoryQuery) -> Result<Vec<HistoryRow>, Unavailable> {
        Ok(vec![])
    }

    async fn analytics(&self, _: &AnalyticsQuery) -> Result<Analytics, Unavailable> {
        Ok(Analytics::default())
    }

    async fn erase_metadata(&self, user: UserId) -> Result<(), Unavailable> {
        self.erased.lock().unwrap().push(user);
        Ok(())
    }
}
