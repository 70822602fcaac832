//! Puts services and stores together: the only place that knows both.

use std::sync::Arc;

use aggregator::{Aggregator, AlertSender, Progress};
use anyhow::Context as _;
use api::accounts::{LoginThrottle, Passwords, TokenIssuer, signing_keys};
use api::changes::{ChangeFollower, Followed};
use api::{Api, Payments};
use edge::{Health, HealthCheck, Routes, Verifier};
use ingest::{Ingest, Parts};
use metering::accounts::SigningKey;
use metering::usage::Books;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;

use super::Stop;
use crate::backend::Stores;
use crate::context::Context;
use crate::dead_letters::Replayer;
use crate::settings::{PaymentMode, Settings};
use crate::webhook::Webhook;

/// The services of one process, on its stores. Those that it does not run are not there.
pub(super) struct Node {
    pub(super) aggregator: Option<Aggregator>,
    alert_sender: Option<AlertSender>,
    api: Option<Api>,
    ingest: Option<Ingest>,
    replayer: Option<Replayer>,
    follower: ChangeFollower,
    books: Arc<dyn Books>,
    health: Health,
    prometheus: PrometheusHandle,
}

impl Node {
    pub(super) async fn open(
        context: &Context,
        stores: Stores,
        prometheus: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let Context { settings, clock, .. } = context;
        let accounts = &stores.accounts;
        let signing = signing_keys(&*accounts.signing_keys, clock.now()).await;
        let signing = signing.context("the keys that sign access tokens cannot be read")?;
        let verifier = Verifier::new(
            accounts.accounts.clone(),
            accounts.api_keys.clone(),
            signing.clone(),
            Arc::clone(clock),
        );
        let followed = Followed {
            feed: accounts.changes.clone(),
            subscriptions: accounts.subscriptions.clone(),
            counter: Arc::clone(&stores.counter),
            plans: Arc::clone(&settings.plans),
            verifier: verifier.clone(),
            clock: Arc::clone(clock),
        };
        // Before anything is cached: no change is missed.
        let follower = ChangeFollower::start(followed).await.context("accounts cannot be read")?;
        let aggregator = aggregator(context, &stores);
        let roles = settings.roles;
        let api = if roles.api { Some(api(context, &stores, &verifier, &signing)?) } else { None };
        let progress = aggregator.as_ref().map(|one| one.progress.clone() as Arc<dyn HealthCheck>);
        let checks = progress.into_iter().chain([follower.health()]).chain(stores.health.clone());
        Ok(Self {
            health: Health::new(checks.collect()),
            replayer: replayer(context, &stores),
            alert_sender: aggregator.as_ref().and_then(|_| alert_sender(context, &stores)),
            books: stores.ledger.books.clone(),
            ingest: roles.ingest.then(|| ingest(context, stores, verifier)),
            aggregator,
            api,
            follower,
            prometheus,
        })
    }

    /// What clients call.
    pub(super) fn public_routes(&self) -> Routes {
        let api = self.api.clone().map(|api| api::routes().with_state(api));
        let ingest = self.ingest.clone().map(|ingest| ingest::routes().with_state(ingest));
        api.into_iter().chain(ingest).fold(self.health.routes(), Routes::merge)
    }

    /// What operators and the command line call.
    pub(super) fn ops_routes(&self) -> Routes {
        let counting = self.aggregator.clone().map(aggregator::routes);
        let letters = self.replayer.clone().map(Replayer::routes);
        let operations = edge::ops::routes(self.prometheus.clone(), &self.health);
        counting.into_iter().chain(letters).fold(operations, Routes::merge)
    }

    /// Starts what goes on beside the listeners, until it is aborted.
    pub(super) fn tasks(self, context: &Context, stop: &Stop) -> Vec<JoinHandle<()>> {
        let interval = context.settings.reconcile_interval;
        let mut tasks = vec![
            tokio::spawn(self.follower.run(stop.wait())),
            tokio::spawn(edge::telemetry::upkeep(self.prometheus)),
        ];
        if let Some(sender) = self.alert_sender {
            tasks.push(tokio::spawn(sender.run()));
        }
        if let Some(aggregator) = self.aggregator {
            tasks.push(tokio::spawn(aggregator::watch_books(aggregator, self.books, interval)));
        }
        tasks
    }
}

fn aggregator(context: &Context, stores: &Stores) -> Option<Aggregator> {
    let clock = &context.clock;
    Some(Aggregator {
        source: stores.source.clone()?,
        ledger: stores.ledger.ledger.clone(),
        alert_rules: context.settings.alert_rules(),
        lookup: stores.ledger.lookup.clone(),
        counter: Arc::clone(&stores.counter),
        clock: Arc::clone(clock),
        progress: Arc::new(Progress::new(Arc::clone(clock))),
        log_retention: context.settings.log_retention,
        flush_interval: context.settings.flush_interval(),
    })
}

/// For who counts, if there is a receiver.
fn alert_sender(context: &Context, stores: &Stores) -> Option<AlertSender> {
    let Context { settings, clock, .. } = context;
    Some(AlertSender {
        alerts: stores.ledger.alerts.clone(),
        accounts: stores.accounts.accounts.clone(),
        preferences: stores.accounts.preferences.clone(),
        receiver: Arc::new(Webhook::new(settings.webhook.clone()?, Arc::clone(clock))),
        clock: Arc::clone(clock),
    })
}

fn ingest(context: &Context, stores: Stores, verifier: Verifier) -> Ingest {
    let Context { settings, clock, .. } = context;
    Ingest::new(Parts {
        accounts: stores.accounts.accounts,
        lookup: stores.ledger.lookup,
        counter: stores.counter,
        log: stores.log,
        plans: Arc::clone(&settings.plans),
        models: Arc::clone(&settings.models),
        verifier,
        clock: Arc::clone(clock),
        look_up: stores.look_up,
    })
}

fn api(
    context: &Context,
    stores: &Stores,
    verifier: &Verifier,
    signing: &[SigningKey],
) -> anyhow::Result<Api> {
    let Context { settings, clock, .. } = context;
    let accounts = &stores.accounts;
    let issuer = TokenIssuer::new(signing, settings.access_token_ttl)?
        .with_refresh_ttl(settings.refresh_token_ttl);
    Ok(Api {
        accounts: accounts.accounts.clone(),
        subscriptions: accounts.subscriptions.clone(),
        preferences: accounts.preferences.clone(),
        sessions: accounts.sessions.clone(),
        reports: stores.ledger.reports.clone(),
        alerts: stores.ledger.alerts.clone(),
        counter: Arc::clone(&stores.counter),
        plans: Arc::clone(&settings.plans),
        models: Arc::clone(&settings.models),
        verifier: verifier.clone(),
        issuer: Arc::new(issuer),
        passwords: Arc::new(Passwords::new(cores())),
        throttle: Arc::new(LoginThrottle::new(accounts.login_attempts.clone())),
        payments: payments(settings),
        clock: Arc::clone(clock),
    })
}

fn replayer(context: &Context, stores: &Stores) -> Option<Replayer> {
    let (letters, log) = (stores.letters.clone()?, stores.log.clone());
    Some(Replayer { letters, log, clock: Arc::clone(&context.clock) })
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
