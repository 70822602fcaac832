//! Questions of several requests for counted ids are asked as one.
//!
//! Every event that is refused is such a question: a client that hammers past its limit must not
//! take the database away from those who count.

use std::sync::Arc;
use std::time::Duration;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::usage::{IdDigest, Known, KnownEvent, Partition};
use tokio::sync::{mpsc, oneshot};

use super::lookup::{self, Found};
use super::{Shared, unavailable};

/// Requests that may wait; one more waits outside.
const WAITING_MAX: usize = 1024;

/// How long a question waits for others. To ask takes the server some milliseconds of its processor,
/// however little is asked, and who waits is refused most of the time.
const GATHERING: Duration = Duration::from_millis(50);

/// Asks for the ids of all requests. Cheap to clone.
#[derive(Clone)]
pub(super) struct KnownIds {
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    ids: Vec<(UserId, IdDigest)>,
    answer: oneshot::Sender<Result<Known, Unavailable>>,
}

impl KnownIds {
    /// Starts the task that asks; it ends with the last clone.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        tokio::spawn(ask_for_what_waits(shared, queue));
        Self { waiting }
    }

    /// See `LedgerLookup::known`.
    pub(super) async fn known(&self, ids: &[(UserId, IdDigest)]) -> Result<Known, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let gone = || unavailable("the task that looks ids up has ended");
        let waiting = Waiting { ids: ids.to_vec(), answer };
        self.waiting.send(waiting).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn ask_for_what_waits(shared: Arc<Shared>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::new();
    while let Some(first) = queue.recv().await {
        waiting.push(first);
        tokio::time::sleep(GATHERING).await;
        while let Ok(another) = queue.try_recv() {
            waiting.push(another);
        }
        // Whoever went away asks for nothing any more.
        waiting.retain(|one| !one.answer.is_closed());
        answer(&shared, std::mem::take(&mut waiting)).await;
    }
}

async fn answer(shared: &Shared, waiting: Vec<Waiting>) {
    match ask(shared, &waiting).await {
        Ok(all) => {
            for (one, known) in waiting.into_iter().zip(all) {
                drop(one.answer.send(Ok(known)));
            }
        }
        Err(error) => {
            for one in waiting {
                drop(one.answer.send(Err(error.clone())));
            }
        }
    }
}

/// The cursors are read first: whatever lies below them was stored before.
async fn ask(shared: &Shared, waiting: &[Waiting]) -> Result<Vec<Known>, Unavailable> {
    let positions = lookup::positions(shared).await?;
    let position = |partition| positions.get(&partition).copied().unwrap_or_default();
    let digests: Vec<_> = waiting.iter().flat_map(|one| &one.ids).map(|(_, id)| *id).collect();
    let counted = |partition, offset| offset < position(partition);
    let found = lookup::find(shared, &digests, counted).await?;
    let known = |found: &Found| KnownEvent { offset: found.offset, content: found.seen.content };
    let of = |one: &Waiting| {
        let users = one.ids.iter().map(|(user, _)| *user);
        let partitions = users.map(|user| Partition::of(user, shared.settings.partitions));
        Known {
            cursor: partitions.map(position).min().unwrap_or_default(),
            found: one.ids.iter().map(|(_, id)| found.get(id).map(known)).collect(),
        }
    };
    Ok(waiting.iter().map(of).collect())
}
