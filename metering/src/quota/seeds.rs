//! What a quota counter reads when it meets a user for the first time.

use std::sync::Arc;

use async_trait::async_trait;

use super::{PlanCatalogue, Terms};
use crate::Unavailable;
use crate::accounts::{Subscriptions, UserId};
use crate::time::{Clock, Period};
use crate::usage::{LedgerLookup, TotalsAt};

/// Terms and totals for a counter that does not have them.
#[async_trait]
pub trait QuotaSeeds: Send + Sync {
    /// The terms in force now, in the order asked; `None` for who does not exist.
    async fn terms(&self, users: &[UserId]) -> Result<Vec<Option<Terms>>, Unavailable>;

    /// See [`LedgerLookup::totals`].
    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable>;
}

/// The seeds of the real product: subscriptions under the plan catalogue, totals of the ledger.
#[derive(Clone)]
pub struct Seeds {
    /// Who is on which plan.
    pub subscriptions: Arc<dyn Subscriptions>,
    /// What was counted.
    pub ledger: Arc<dyn LedgerLookup>,
    /// What the plans are.
    pub plans: Arc<PlanCatalogue>,
    /// Decides whether a subscription has expired.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl QuotaSeeds for Seeds {
    async fn terms(&self, users: &[UserId]) -> Result<Vec<Option<Terms>>, Unavailable> {
        let now = self.clock.now();
        let found = self.subscriptions.of_users(users).await?;
        Ok(found.into_iter().map(|one| one.map(|one| one.terms(&self.plans, now))).collect())
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        self.ledger.totals(users).await
    }
}
