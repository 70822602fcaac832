//! `tokenmeter serve`: everything in one process on the stores of one directory, or the parts of a
//! cluster that `--role` names.

mod greeting;
mod store_health;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::http::HeaderValue;
use edge::Limits;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backend::{Cluster, SingleNode};
use crate::context::Context;
use crate::data_dir::{DataDir, RunningServer};
use crate::output::Outcome;
pub(crate) use store_health::StoreHealth;
use wiring::Node;

/// Runs until SIGTERM or SIGINT, then drains.
pub(crate) fn run(context: &Context) -> anyhow::Result<Outcome> {
    // Before anything is measured, so that nothing is missing.
    let prometheus = edge::telemetry::install().context("metrics cannot be kept")?;
    describe(context);
    edge::telemetry::announce(env!("CARGO_PKG_VERSION"), context.clock.now());
    let Some(settings) = &context.settings.cluster else {
        let directory = DataDir::create(&context.settings.data_dir)?;
        let _lock = directory.lock()?;
        let served = context.block_on(async {
            let (signals, listeners) = (Signals::listen()?, Listeners::bind(context).await?);
            let stores = SingleNode::open(context, &directory)?;
            let node = Node::open(context, stores, prometheus).await?;
            serve(context, Some(&directory), node, listeners, signals).await
        });
        directory.remove_server();
        return served;
    };
    context.block_on(async {
        let (mut signals, listeners) = (Signals::listen()?, Listeners::bind(context).await?);
        let opening = async {
            let cluster = Cluster::wait_to_connect(settings).await?;
            cluster.open(context, context.settings.roles).await
        };
        let stores = tokio::select! {
            stores = opening => stores?,
            () = signals.next() => return Ok(Outcome::Success),
        };
        let node = Node::open(context, stores, prometheus).await?;
        serve(context, None, node, listeners, signals).await
    })
}

fn describe(context: &Context) {
    edge::telemetry::describe();
    ingest::describe();
    aggregator::describe();
    api::describe();
    let mut labels = vec!["accounts", "event_log", "ledger", "quota_counter"];
    if context.settings.cluster.is_some() {
        stores::kafka::KafkaEventLog::describe();
        stores::cluster_ledger::ClusterLedger::describe();
        labels.push("epochs");
    } else {
        stores::sqlite::SqliteEventLog::describe();
        stores::sqlite::SqliteLedger::describe();
    }
    // An alert on errors needs the series before the first one.
    for store in labels {
        metrics::counter!("tokenmeter_store_errors_total", "store" => store).increment(0);
    }
}

/// Ends of the process that are asked for.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be listened to");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Both listeners. Bound before the stores are opened: a taken port is told at once.
struct Listeners {
    public: TcpListener,
    ops: TcpListener,
}

impl Listeners {
    async fn bind(context: &Context) -> anyhow::Result<Self> {
        let settings = &context.settings;
        let public = bind("listen", settings.listen).await?;
        Ok(Self { public, ops: bind("ops-listen", settings.ops_listen).await? })
    }
}

async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("{address} cannot be listened on; name another with --{setting}"))
}

/// Turns from `false` to `true` once.
#[derive(Clone)]
struct Stop(watch::Sender<bool>);

impl Stop {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    fn now(&self) {
        self.0.send_replace(true);
    }

    /// Resolves once it is time.
    fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.0.subscribe();
        async move {
            // The sender lives in `self`'s clones; when all are gone it is time as well.
            drop(stopping.wait_for(|stop| *stop).await);
        }
    }
}

async fn serve(
    context: &Context,
    directory: Option<&DataDir>,
    node: Node,
    listeners: Listeners,
    mut signals: Signals,
) -> anyhow::Result<Outcome> {
    let running = RunningServer {
        listen: listeners.public.local_addr()?,
        ops_listen: listeners.ops.local_addr()?,
        pid: std::process::id(),
    };
    // In this order they end: who takes requests, who counts what they left in the log, who tells.
    let (requests, counting, operations) = (Stop::new(), Stop::new(), Stop::new());
    let settings = &context.settings;
    let origins = settings.cors_origins.iter().map(|origin| HeaderValue::from_str(origin));
    let origins = origins.collect::<Result<Vec<_>, _>>()?;
    let limits = Limits {
        connections_max: settings.max_connections,
        trusted_proxies: settings.trusted_proxies.clone(),
        ..Limits::default()
    };
    let public = edge::app(node.public_routes(), &origins, Arc::clone(&context.clock));
    let ops = edge::app(node.ops_routes(), &[], Arc::clone(&context.clock));
    let public = tokio::spawn(edge::serve(listeners.public, public, limits, requests.wait()));
    let ops = edge::serve(listeners.ops, ops, Limits::default(), operations.wait());
    let ops = tokio::spawn(ops);
    let counted = node.aggregator.clone();
    let counted = counted.map(|aggregator| tokio::spawn(aggregator.run(counting.wait())));
    let beside = node.tasks(context, &operations);

    if let Some(directory) = directory {
        directory.write_server(&running)?;
    }
    greeting::print(context, &running);
    tracing::info!(listen = %running.listen, ops = %running.ops_listen, "serving");
    signals.next().await;
    tracing::info!("draining: no more connections are taken");
    if let Some(directory) = directory {
        directory.remove_server();
    }
    requests.now();
    ended("requests", public).await??;
    counting.now();
    let counted = match counted {
        Some(counted) => ended("counting", counted).await?,
        None => Ok(()),
    };
    operations.now();
    ended("operations", ops).await??;
    for task in beside {
        task.abort();
        drop(task.await);
    }
    counted.context("counting had stopped")?;
    tracing::info!("drained");
    Ok(Outcome::Success)
}

async fn ended<T>(what: &str, task: JoinHandle<T>) -> anyhow::Result<T> {
    task.await.with_context(|| format!("{what} ended badly"))
}
