//! What every command has: settings, a clock, a runtime, and the stores beside a running server.

use std::sync::Arc;

use anyhow::Context as _;
use metering::time::Clock;

use crate::backend::{AccountStores, Backend, Cluster, SingleNode};
use crate::data_dir::DataDir;
use crate::settings::Settings;

/// What every command has.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Runtime,
}

impl Context {
    pub(crate) fn new(settings: Settings, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("no threads can be started")?;
        Ok(Self { settings, clock, runtime })
    }

    /// Runs `work` to its end on this thread.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The data directory, which must be there.
    pub(crate) fn directory(&self) -> anyhow::Result<DataDir> {
        DataDir::existing(&self.settings.data_dir)
    }

    /// The cluster of the settings; `None`: a single node.
    pub(crate) fn cluster(&self) -> anyhow::Result<Option<Cluster>> {
        let Some(settings) = &self.settings.cluster else { return Ok(None) };
        self.block_on(Cluster::connect(settings)).map(Some)
    }

    /// The cluster of the settings, or else the data directory, which must be there.
    pub(crate) fn backend(&self) -> anyhow::Result<Backend> {
        Ok(match self.cluster()? {
            Some(cluster) => Backend::Cluster(Box::new(cluster)),
            None => Backend::SingleNode(self.directory()?),
        })
    }

    /// Users and keys. They can be made before the first start of the server too.
    pub(crate) fn accounts(&self) -> anyhow::Result<AccountStores> {
        match self.cluster()? {
            Some(cluster) => Ok(cluster.accounts()),
            None => SingleNode::accounts(&DataDir::create(&self.settings.data_dir)?),
        }
    }
}
