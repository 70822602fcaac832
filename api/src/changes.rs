//! Follows the change feed: what other processes and the command line changed is in force here
//! within a second.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use edge::{Condition, HealthCheck, Verifier};
use metering::Unavailable;
use metering::accounts::{ChangeFeed, ChangeKind, Subscriptions, UserId};
use metering::quota::{PlanCatalogue, QuotaCounter};
use metering::time::Clock;
use metrics::{counter, describe_counter};

/// Help texts of the metrics of this module.
pub(crate) fn describe() {
    describe_counter!(
        "tokenmeter_changes_total",
        "Changes of users, terms and keys that this process took from the feed, by kind."
    );
}

/// What a change is told to. Wanted in every role: each process caches verdicts or terms.
#[derive(Clone)]
pub struct Followed {
    /// Where changes come from.
    pub feed: Arc<dyn ChangeFeed>,
    /// What terms are read from.
    pub subscriptions: Arc<dyn Subscriptions>,
    /// Where terms are put in force.
    pub counter: Arc<dyn QuotaCounter>,
    /// What the plans are.
    pub plans: Arc<PlanCatalogue>,
    /// What remembers verdicts.
    pub verifier: Verifier,
    /// Decides whether a subscription has expired.
    pub clock: Arc<dyn Clock>,
}

/// A place in the feed; goes forward when everything up to it is in force.
pub struct ChangeFollower {
    followed: Followed,
    position: u64,
    in_touch: Arc<AtomicBool>,
}

impl ChangeFollower {
    /// Starts at the feed's end: to be called before anything is cached.
    ///
    /// # Errors
    /// [`Unavailable`] when the feed cannot be read.
    pub async fn start(followed: Followed) -> Result<Self, Unavailable> {
        let position = followed.feed.latest().await?;
        Ok(Self { followed, position, in_touch: Arc::new(AtomicBool::new(true)) })
    }

    /// Says *degraded* while the feed cannot be read: the process goes on with what it knows.
    pub fn health(&self) -> Arc<dyn HealthCheck> {
        Arc::new(FeedHealth(Arc::clone(&self.in_touch)))
    }

    /// Follows the feed until `shutdown`.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let interval = self.followed.feed.poll_interval();
        tokio::pin!(shutdown);
        loop {
            match self.step().await {
                Ok(()) => self.in_touch.store(true, Ordering::Relaxed),
                Err(error) => self.lost_touch(&error),
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Takes over all changes since the last step.
    ///
    /// # Errors
    /// [`Unavailable`]: the feed, the subscriptions or the counter; the next step tries again.
    pub async fn step(&mut self) -> Result<(), Unavailable> {
        let changes = self.followed.feed.after(self.position).await?;
        let Some(last) = changes.last().map(|change| change.number) else { return Ok(()) };
        let mut users = BTreeSet::new();
        for change in &changes {
            // Verdicts first: a lock does not wait for the counter.
            match &change.kind {
                ChangeKind::User(id) => {
                    self.followed.verifier.forget_user(*id);
                    users.insert(*id);
                }
                ChangeKind::Terms(id) => {
                    users.insert(*id);
                }
                ChangeKind::ApiKey(id) => self.followed.verifier.forget_key(id),
            }
        }
        self.put_terms_in_force(users.into_iter().collect()).await?;
        self.position = last;
        for change in changes {
            counter!("tokenmeter_changes_total", "kind" => kind(&change.kind)).increment(1);
        }
        Ok(())
    }

    async fn put_terms_in_force(&self, users: Vec<UserId>) -> Result<(), Unavailable> {
        let Followed { subscriptions, counter, plans, clock, .. } = &self.followed;
        let found = subscriptions.of_users(&users).await?;
        for (user, subscription) in users.into_iter().zip(found) {
            let terms = subscription.map(|found| found.terms(plans, clock.now()));
            counter.set_terms(user, terms).await?;
        }
        Ok(())
    }

    fn lost_touch(&self, error: &Unavailable) {
        counter!("tokenmeter_store_errors_total", "store" => error.store).increment(1);
        // Once, and not at every poll.
        if self.in_touch.swap(false, Ordering::Relaxed) {
            tracing::warn!(store = error.store, reason = error.reason, "change feed not followed");
        }
    }
}

fn kind(kind: &ChangeKind) -> &'static str {
    match kind {
        ChangeKind::User(_) => "user",
        ChangeKind::Terms(_) => "terms",
        ChangeKind::ApiKey(_) => "api_key",
    }
}

struct FeedHealth(Arc<AtomicBool>);

#[async_trait]
impl HealthCheck for FeedHealth {
    fn name(&self) -> &'static str {
        "change_feed"
    }

    async fn check(&self) -> Condition {
        if self.0.load(Ordering::Relaxed) {
            return Condition::Good;
        }
        Condition::Degraded("locks, revocations and plan changes may be late".into())
    }
}
