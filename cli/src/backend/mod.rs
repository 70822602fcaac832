//! Which stores stand behind the ports: files in the data directory, or the four servers. Services
//! and commands see the ports alone.

mod cluster;
mod single_node;

use std::sync::Arc;

use edge::HealthCheck;
use ingest::LookUp;
use metering::accounts::{
    Accounts, ApiKeys, ChangeFeed, LoginAttempts, PreferenceStore, Sessions, SigningKeys,
    Subscriptions,
};
use metering::quota::QuotaCounter;
use metering::usage::{
    Alerts, Books, DeadLetters, EventLog, EventSource, LedgerLookup, UsageLedger, UsageReports,
};

use crate::context::Context;
use crate::data_dir::DataDir;
pub(crate) use cluster::Cluster;
pub(crate) use single_node::SingleNode;

/// What a command works on, beside the servers that run: resolved once, because to reach a cluster
/// takes several questions.
pub(crate) enum Backend {
    Cluster(Box<Cluster>),
    SingleNode(DataDir),
}

impl Backend {
    /// The figures that reconciliation compares, beside the process that counts.
    pub(crate) fn books(&self, context: &Context) -> anyhow::Result<Arc<dyn Books>> {
        Ok(match self {
            Self::Cluster(cluster) => Arc::new(context.block_on(async { cluster.ledger() })),
            Self::SingleNode(directory) => Arc::new(SingleNode::ledger(directory)?),
        })
    }

    /// What was raised, and its outbox.
    pub(crate) fn alerts(&self, context: &Context) -> anyhow::Result<Arc<dyn Alerts>> {
        Ok(match self {
            Self::Cluster(cluster) => Arc::new(context.block_on(async { cluster.ledger() })),
            Self::SingleNode(directory) => Arc::new(SingleNode::ledger(directory)?),
        })
    }

    /// Records that were set aside.
    pub(crate) fn dead_letters(&self, context: &Context) -> anyhow::Result<Arc<dyn DeadLetters>> {
        Ok(match self {
            Self::Cluster(cluster) => Arc::new(context.block_on(async { cluster.ledger() })),
            Self::SingleNode(directory) => Arc::new(SingleNode::ledger(directory)?),
        })
    }
}

/// Users, what they may do, and their credentials.
#[derive(Clone)]
pub(crate) struct AccountStores {
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) subscriptions: Arc<dyn Subscriptions>,
    pub(crate) preferences: Arc<dyn PreferenceStore>,
    pub(crate) api_keys: Arc<dyn ApiKeys>,
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) login_attempts: Arc<dyn LoginAttempts>,
    pub(crate) signing_keys: Arc<dyn SigningKeys>,
    pub(crate) changes: Arc<dyn ChangeFeed>,
}

impl AccountStores {
    fn of<S>(store: &Arc<S>) -> Self
    where
        S: Accounts
            + Subscriptions
            + PreferenceStore
            + ApiKeys
            + Sessions
            + LoginAttempts
            + SigningKeys
            + ChangeFeed
            + 'static,
    {
        Self {
            accounts: store.clone(),
            subscriptions: store.clone(),
            preferences: store.clone(),
            api_keys: store.clone(),
            sessions: store.clone(),
            login_attempts: store.clone(),
            signing_keys: store.clone(),
            changes: store.clone(),
        }
    }
}

/// What was counted.
#[derive(Clone)]
pub(crate) struct LedgerStores {
    pub(crate) ledger: Arc<dyn UsageLedger>,
    pub(crate) lookup: Arc<dyn LedgerLookup>,
    pub(crate) reports: Arc<dyn UsageReports>,
    pub(crate) alerts: Arc<dyn Alerts>,
    pub(crate) books: Arc<dyn Books>,
}

/// Everything that a server works on.
pub(crate) struct Stores {
    pub(crate) accounts: AccountStores,
    pub(crate) ledger: LedgerStores,
    pub(crate) counter: Arc<dyn QuotaCounter>,
    pub(crate) log: Arc<dyn EventLog>,
    /// For who counts; others do not join.
    pub(crate) source: Option<Arc<dyn EventSource>>,
    /// When an ingest asks the ledger.
    pub(crate) look_up: LookUp,
    /// Records that were set aside, if this server is the one that appends them again.
    pub(crate) letters: Option<Arc<dyn DeadLetters>>,
    pub(crate) health: Vec<Arc<dyn HealthCheck>>,
}
