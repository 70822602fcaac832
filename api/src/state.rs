//! What every handler of this service works on.

use std::sync::Arc;

use axum::extract::FromRef;
use edge::Verifier;
use metering::accounts::{Accounts, PreferenceStore, Sessions, Subscriptions};
use metering::quota::{ModelCatalogue, PlanCatalogue, QuotaCounter};
use metering::time::Clock;
use metering::usage::{Alerts, UsageReports};

use crate::accounts::{LoginThrottle, Passwords, TokenIssuer};

/// Who may put a paid plan in force without an admin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payments {
    /// Nobody: admins grant plans, a user asking is refused.
    #[default]
    None,
    /// Everybody, as asked: for trials.
    Trust,
}

/// The service's state: ports, catalogues and what issues credentials. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Who there is.
    pub accounts: Arc<dyn Accounts>,
    /// Who is on which plan.
    pub subscriptions: Arc<dyn Subscriptions>,
    /// What users like.
    pub preferences: Arc<dyn PreferenceStore>,
    /// Refresh tokens.
    pub sessions: Arc<dyn Sessions>,
    /// What the usage endpoints read.
    pub reports: Arc<dyn UsageReports>,
    /// Who has used how much of their plan.
    pub alerts: Arc<dyn Alerts>,
    /// What is used right now, and where new terms are put in force.
    pub counter: Arc<dyn QuotaCounter>,
    /// Which plans there are.
    pub plans: Arc<PlanCatalogue>,
    /// Which models there are.
    pub models: Arc<ModelCatalogue>,
    /// Says who calls.
    pub verifier: Verifier,
    /// Signs access tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Hashes passwords.
    pub passwords: Arc<Passwords>,
    /// Counts wrong passwords.
    pub throttle: Arc<LoginThrottle>,
    /// How paid plans come about.
    pub payments: Payments,
    /// The present.
    pub clock: Arc<dyn Clock>,
}

impl FromRef<Api> for Verifier {
    fn from_ref(api: &Api) -> Self {
        api.verifier.clone()
    }
}
