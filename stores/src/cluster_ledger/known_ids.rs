//! Questions of several requests for counted ids are asked as one.
//!
//! Every event that is refused is such a question: a client that hammers past its limit must not
//! take the database away from those who count.

use std::sync::Arc;
use std::time::Duration;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::usage::{IdDigest, Known, KnownEvent, Partition};

use super::Shared;
use super::lookup::{self, Found};
use super::stored::STORE;
use crate::together::{Gathering, Together};

const GATHERING: Gathering = Gathering {
    questions_max: 1024,
    // To ask takes the server some milliseconds of its processor, however little is asked, and who
    // waits is refused most of the time.
    patience: Duration::from_millis(50),
};

type Ids = Vec<(UserId, IdDigest)>;

/// Asks for the ids of all requests. Cheap to clone.
#[derive(Clone)]
pub(super) struct KnownIds(Together<Ids, Known>);

impl KnownIds {
    /// Starts the task that asks; it ends with the last clone.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let ask = move |waiting: Vec<Ids>| {
            let shared = Arc::clone(&shared);
            async move { ask(&shared, &waiting).await }
        };
        Self(Together::start(STORE, GATHERING, ask))
    }

    /// See `LedgerLookup::known`.
    pub(super) async fn known(&self, ids: &[(UserId, IdDigest)]) -> Result<Known, Unavailable> {
        self.0.ask(ids.to_vec()).await
    }
}

/// The cursors are read first: whatever lies below them was stored before.
async fn ask(shared: &Shared, waiting: &[Ids]) -> Result<Vec<Known>, Unavailable> {
    let positions = lookup::positions(shared).await?;
    let position = |partition| positions.get(&partition).copied().unwrap_or_default();
    let digests: Vec<_> = waiting.iter().flatten().map(|(_, id)| *id).collect();
    let counted = |partition, offset| offset < position(partition);
    let found = lookup::find(shared, &digests, counted).await?;
    let known = |found: &Found| KnownEvent { offset: found.offset, content: found.seen.content };
    let of = |ids: &Ids| {
        let users = ids.iter().map(|(user, _)| *user);
        let partitions = users.map(|user| Partition::of(user, shared.settings.partitions));
        Known {
            cursor: partitions.map(position).min().unwrap_or_default(),
            found: ids.iter().map(|(_, id)| found.get(id).map(known)).collect(),
        }
    };
    Ok(waiting.iter().map(of).collect())
}
