//! Puts services and stores together: the only place that knows both.

use std::sync::Arc;

use aggregator::{Aggregator, Progress};
use anyhow::Context as _;
use api::accounts::{LoginThrottle, Passwords, TokenIssuer, signing_keys};
use api::changes::{ChangeFollower, Followed};
use api::{Api, Payments};
use axum::Router;
use edge::{Health, Verifier};
use ingest::{Ingest, LookUp, Parts};
use metering::quota::{QuotaCounter, Seeds};
use metering::usage::Books;
use metrics_exporter_prometheus::PrometheusHandle;
use stores::memory::MemoryQuotaCounter;
use stores::sqlite::{LedgerFile, SqliteAccounts, SqliteEventLog, SqliteLedger};
use tokio::task::JoinHandle;

use super::Stop;
use super::log_health::LogHealth;
use crate::context::Context;
use crate::data_dir::{ACCOUNTS, DataDir, LOG};
use crate::dead_letters::Replayer;
use crate::settings::{PaymentMode, Settings};

/// All three services of a single node, on the stores of one directory.
pub(super) struct Node {
    pub(super) aggregator: Aggregator,
    api: Api,
    ingest: Ingest,
    replayer: Replayer,
    follower: ChangeFollower,
    books: Arc<dyn Books>,
    health: Health,
    prometheus: PrometheusHandle,
}

/// The stores of a directory, opened by the process that counts.
struct Stores {
    log: Arc<SqliteEventLog>,
    ledger: Arc<SqliteLedger>,
    file: Arc<LedgerFile>,
    accounts: Arc<SqliteAccounts>,
    counter: Arc<dyn QuotaCounter>,
}

impl Stores {
    fn open(context: &Context, directory: &DataDir) -> anyhow::Result<Self> {
        let accounts = Arc::new(SqliteAccounts::open(&directory.file(ACCOUNTS))?);
        let ledger = Arc::new(SqliteLedger::open(directory.path())?);
        let clock = Arc::clone(&context.clock);
        let log = Arc::new(SqliteEventLog::open(&directory.file(LOG), Arc::clone(&clock))?);
        let seeds = Seeds {
            subscriptions: accounts.clone(),
            ledger: ledger.clone(),
            plans: Arc::clone(&context.settings.plans),
            clock: Arc::clone(&clock),
        };
        let counter = Arc::new(MemoryQuotaCounter::new(Arc::new(seeds), clock));
        let file = Arc::new(ledger.file().clone());
        Ok(Self { log, ledger, file, accounts, counter })
    }
}

impl Node {
    pub(super) async fn open(
        context: &Context,
        directory: &DataDir,
        prometheus: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let stores = Stores::open(context, directory)?;
        let Context { settings, clock, .. } = context;
        let Stores { log, ledger, file, accounts, counter } = stores;
        let signing = signing_keys(&*accounts, clock.now()).await;
        let signing = signing.context("the keys that sign access tokens cannot be read")?;
        let issuer = TokenIssuer::new(&signing, settings.access_token_ttl)?
            .with_refresh_ttl(settings.refresh_token_ttl);
        let verifier =
            Verifier::new(accounts.clone(), accounts.clone(), signing, Arc::clone(clock));
        let followed = Followed {
            feed: accounts.clone(),
            subscriptions: accounts.clone(),
            counter: Arc::clone(&counter),
            plans: Arc::clone(&settings.plans),
            verifier: verifier.clone(),
            clock: Arc::clone(clock),
        };
        // Before anything is cached: no change is missed.
        let follower = ChangeFollower::start(followed).await.context("accounts cannot be read")?;
        let aggregator = Aggregator {
            source: log.clone(),
            ledger: ledger.clone(),
            lookup: ledger.clone(),
            counter: Arc::clone(&counter),
            clock: Arc::clone(clock),
            progress: Arc::new(Progress::new(Arc::clone(clock))),
            log_retention: settings.log_retention,
        };
        let ingest = Ingest::new(Parts {
            accounts: accounts.clone(),
            lookup: ledger,
            counter: Arc::clone(&counter),
            log: log.clone(),
            plans: Arc::clone(&settings.plans),
            models: Arc::clone(&settings.models),
            verifier: verifier.clone(),
            clock: Arc::clone(clock),
            look_up: LookUp::Every,
        });
        let log_health = Arc::new(LogHealth(Arc::clone(&log)));
        let replayer = Replayer { letters: file.clone(), log, clock: Arc::clone(clock) };
        let health = Health::new(vec![aggregator.progress.clone(), follower.health(), log_health]);
        let books = file.clone();
        let api = Api {
            accounts: accounts.clone(),
            subscriptions: accounts.clone(),
            preferences: accounts.clone(),
            sessions: accounts.clone(),
            reports: file,
            counter,
            plans: Arc::clone(&settings.plans),
            models: Arc::clone(&settings.models),
            verifier,
            issuer: Arc::new(issuer),
            passwords: Arc::new(Passwords::new(cores())),
            throttle: Arc::new(LoginThrottle::new(accounts)),
            payments: payments(settings),
            clock: Arc::clone(clock),
        };
        Ok(Self { aggregator, api, ingest, replayer, follower, books, health, prometheus })
    }

    /// What clients call.
    pub(super) fn public_routes(&self) -> Router {
        let api = api::routes().with_state(self.api.clone());
        let ingest = ingest::routes().with_state(self.ingest.clone());
        api.merge(ingest).merge(self.health.routes())
    }

    /// What operators and the command line call.
    pub(super) fn ops_routes(&self) -> Router {
        edge::ops::router(self.prometheus.clone(), &self.health)
            .merge(aggregator::routes(self.aggregator.clone()))
            .merge(self.replayer.clone().routes())
    }

    /// Starts what goes on beside the listeners, until it is aborted.
    pub(super) fn tasks(self, context: &Context, stop: &Stop) -> Vec<JoinHandle<()>> {
        let interval = context.settings.reconcile_interval;
        vec![
            tokio::spawn(self.follower.run(stop.wait())),
            tokio::spawn(aggregator::watch_books(self.aggregator, self.books, interval)),
            tokio::spawn(edge::telemetry::upkeep(self.prometheus)),
        ]
    }
}

const fn payments(settings: &Settings) -> Payments {
    match settings.payments {
        PaymentMode::None => Payments::None,
        PaymentMode::Trust => Payments::Trust,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
