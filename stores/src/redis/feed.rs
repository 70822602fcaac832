//! What this process knows of the epochs in force.
//!
//! A server that was replaced may live on, and its epochs look as open as ever. So what an epoch
//! lets in is passed on only while the feed names it, and only if this process has looked at the
//! feed recently enough: whoever replaces a server waits for as long as that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::quota::{Epoch, Epochs};
use metering::time::{Clock, Timestamp};
use metering::usage::Partition;

use super::unavailable;

/// How long a look at the feed may take before it counts as failed. Admissions that need one wait
/// for it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Under which epoch an answer was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voucher {
    pub(super) partition: Partition,
    pub(super) nonce: u64,
    /// Of something that is to be passed on; the nonce alone decides about other answers.
    pub(super) admitted_at: Option<Timestamp>,
}

/// The epochs in force, looked at again and again.
pub(super) struct Feed {
    epochs: Arc<dyn Epochs>,
    clock: Arc<dyn Clock>,
    delay: Duration,
    known: Mutex<Known>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
}

struct Known {
    epochs: BTreeMap<Partition, Epoch>,
    /// When the latest look that succeeded began, by the clock that other processes know.
    began_at: Timestamp,
    /// The latest look: when it began, and whether it succeeded.
    latest: Option<(Instant, Result<(), Unavailable>)>,
}

impl Feed {
    /// Looks every `poll`, for as long as somebody holds it.
    pub(super) fn start(
        epochs: Arc<dyn Epochs>,
        clock: Arc<dyn Clock>,
        delay: Duration,
        poll: Duration,
    ) -> Arc<Self> {
        let known = Known { epochs: BTreeMap::new(), began_at: Timestamp::MIN, latest: None };
        let looking = tokio::sync::Mutex::new(());
        let feed = Arc::new(Self { epochs, clock, delay, known: Mutex::new(known), looking });
        tokio::spawn(keep_looking(Arc::downgrade(&feed), poll));
        feed
    }

    /// Whether the latest look succeeded. Without it this process goes on with what it knows.
    pub(super) fn in_touch(&self) -> bool {
        self.known().latest.as_ref().is_none_or(|(_, outcome)| outcome.is_ok())
    }

    /// The epoch that was last seen in force.
    pub(super) fn nonce(&self, partition: Partition) -> Option<u64> {
        self.known().epochs.get(&partition).map(|epoch| epoch.nonce)
    }

    /// Whether the feed named this epoch when it was last seen.
    pub(super) fn names(&self, voucher: &Voucher) -> bool {
        !matches!(self.judge(std::slice::from_ref(voucher)), Judged::Deposed)
    }

    /// Looks now, unless somebody has done so since `after`.
    pub(super) async fn look(&self, after: Instant) -> Result<(), Unavailable> {
        let _turn = self.looking.lock().await;
        if let Some((began, outcome)) = &self.known().latest
            && *began > after
        {
            return outcome.clone();
        }
        self.look_now().await
    }

    /// Names a partition's epoch, and knows that name from then on; whether it is the first.
    pub(super) async fn announce(
        &self,
        partition: Partition,
        epoch: &Epoch,
    ) -> Result<bool, Unavailable> {
        // With the turn taken, no look from before can bring back the old name.
        let _turn = self.looking.lock().await;
        let first = self.epochs.announce(partition, epoch).await?;
        self.known().epochs.insert(partition, epoch.clone());
        Ok(first)
    }

    /// Whether answers given under these epochs, all received before `since`, may be used.
    pub(super) async fn vouch(
        &self,
        vouchers: &[Voucher],
        since: Instant,
    ) -> Result<(), Unavailable> {
        let late = match self.judge(vouchers) {
            Judged::Good => return Ok(()),
            // Cut off from the feed: goes on with what it knows, and says so.
            Judged::Late if !self.in_touch() => return Ok(()),
            Judged::Late => true,
            Judged::Deposed => false,
        };
        let looked = self.look(since).await;
        match self.judge(vouchers) {
            Judged::Good => Ok(()),
            // The look began after the answer: nothing can be more recent.
            Judged::Late if late || looked.is_ok() => Ok(()),
            Judged::Late | Judged::Deposed => {
                looked?;
                Err(unavailable("the partition is being opened anew"))
            }
        }
    }

    fn judge(&self, vouchers: &[Voucher]) -> Judged {
        let known = self.known();
        let reach = known.began_at.plus(self.delay);
        let named = |one: &Voucher| known.epochs.get(&one.partition).map(|epoch| epoch.nonce);
        if vouchers.iter().any(|one| named(one) != Some(one.nonce)) {
            Judged::Deposed
        } else if vouchers.iter().any(|one| one.admitted_at.is_some_and(|at| at > reach)) {
            Judged::Late
        } else {
            Judged::Good
        }
    }

    async fn look_now(&self) -> Result<(), Unavailable> {
        let (began_at, began) = (self.clock.now(), Instant::now());
        let found = match tokio::time::timeout(LOOK_TIMEOUT, self.epochs.announced()).await {
            Ok(found) => found,
            Err(_) => Err(unavailable("the epoch feed does not answer")),
        };
        let mut known = self.known();
        let outcome = found.map(|epochs| {
            known.epochs = epochs;
            known.began_at = began_at;
        });
        known.latest = Some((began, outcome.clone()));
        outcome
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here can be left half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Judged {
    Good,
    /// Named by the feed, but the feed was seen too long ago.
    Late,
    /// The feed names another epoch, or none.
    Deposed,
}

async fn keep_looking(feed: Weak<Feed>, poll: Duration) {
    let mut was_in_touch = true;
    while let Some(feed) = feed.upgrade() {
        let looked = feed.look(Instant::now()).await;
        match &looked {
            Err(reason) if was_in_touch => {
                tracing::warn!(%reason, "cannot see which epochs are in force");
            }
            Ok(()) if !was_in_touch => tracing::info!("sees again which epochs are in force"),
            Ok(()) | Err(_) => {}
        }
        was_in_touch = looked.is_ok();
        drop(feed);
        tokio::time::sleep(poll).await;
    }
}
