//! The service that takes usage events: single ones, batches, and reservations before a call.
//!
//! An event passes: form, user, *is its id known already*, time and model, the quota counter, the
//! event log. Only when the log has made it durable is it acknowledged.
//!
//! Boundary: it knows the ports of `metering` and HTTP through `edge`. It never counts anything
//! (the aggregator does, from the log alone), never names a store, and never answers 2xx for what
//! is not durable.

mod batch;
mod candidate;
mod metrics;
mod rate_limit;
mod record;
mod refusal;
mod reservations;
mod together;
mod track;

use std::sync::Arc;

use axum::extract::FromRef;
use axum::routing::post;
use edge::{Code, Problem, Routes, Verifier};
use metering::accounts::{Accounts, UserId};
use metering::quota::{ModelCatalogue, PlanCatalogue, QuotaCounter};
use metering::time::Clock;
use metering::usage::{EventLog, FieldError, LedgerLookup, Rejection, UserRef};
use together::Together;

pub use batch::{BATCH_BYTES_MAX, EVENTS_MAX};
pub use metrics::describe;

/// When the ledger is asked whether an id is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// For every id that a client chose: a look-up is cheap where the ledger is in the process.
    Every,
    /// Only before a refusal: the counter and the aggregator tell the other repeats.
    BeforeRefusal,
}

/// What the service is made of.
pub struct Parts {
    /// Lets events in.
    pub counter: Arc<dyn QuotaCounter>,
    /// Makes them durable.
    pub log: Arc<dyn EventLog>,
    /// Knows what was counted.
    pub lookup: Arc<dyn LedgerLookup>,
    /// Knows the users of a service's own ids.
    pub accounts: Arc<dyn Accounts>,
    /// Which models there are.
    pub models: Arc<ModelCatalogue>,
    /// Which plan would help.
    pub plans: Arc<PlanCatalogue>,
    /// The time of receipt.
    pub clock: Arc<dyn Clock>,
    /// Who calls.
    pub verifier: Verifier,
    /// When to ask `lookup`.
    pub look_up: LookUp,
}

/// The service's state. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    parts: Arc<Parts>,
    metrics: metrics::Handles,
    batch_room: batch::Room,
    together: Option<Together>,
}

impl Ingest {
    /// Metrics are resolved here: the recorder must be installed before. Needs a runtime.
    pub fn new(parts: Parts) -> Self {
        let (metrics, batch_room) = (metrics::Handles::new(), batch::Room::new());
        let parts = Arc::new(parts);
        // Where each id is looked up first, a single event has company only at the log, which sees to it.
        let together =
            (parts.look_up == LookUp::BeforeRefusal).then(|| Together::start(parts.clone()));
        Self { shared: Arc::new(Shared { parts, metrics, batch_room, together }) }
    }

    fn parts(&self) -> &Parts {
        &self.shared.parts
    }

    fn metrics(&self) -> &metrics::Handles {
        &self.shared.metrics
    }

    /// Single events go together here; `None`: each by itself.
    fn together(&self) -> Option<&Together> {
        self.shared.together.as_ref()
    }

    fn batch_room(&self) -> &batch::Room {
        &self.shared.batch_room
    }

    /// The user whom a service names.
    async fn user_of(&self, named: Result<Option<UserRef>, FieldError>) -> Result<UserId, Problem> {
        match named.map_err(bad_field)? {
            Some(UserRef::Id(id)) => Ok(id),
            Some(UserRef::Nobody) => Err(unknown_user()),
            Some(UserRef::External(external)) => {
                let found = self.parts().accounts.find_external(&[external]).await?;
                found.first().copied().flatten().ok_or_else(unknown_user)
            }
            None => Err(user_missing()),
        }
    }
}

impl FromRef<Ingest> for Verifier {
    fn from_ref(ingest: &Ingest) -> Self {
        ingest.parts().verifier.clone()
    }
}

/// Every method and path of this service.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/api/tokens/me/track"),
    ("POST", "/api/tokens/track"),
    ("POST", "/api/tokens/track/batch"),
    ("POST", "/api/tokens/me/reservations"),
    ("POST", "/api/tokens/me/reservations/{id}/release"),
    ("POST", "/api/tokens/reservations"),
    ("POST", "/api/tokens/reservations/{id}/release"),
];

/// The routes of [`ROUTES`].
pub fn routes() -> Routes<Ingest> {
    Routes::new()
        .route("/api/tokens/me/track", post(track::own))
        .route("/api/tokens/track", post(track::for_user))
        .route("/api/tokens/track/batch", post(batch::track))
        .route("/api/tokens/me/reservations", post(reservations::hold_own))
        .route("/api/tokens/me/reservations/{id}/release", post(reservations::release_own))
        .route("/api/tokens/reservations", post(reservations::hold_for_user))
        .route("/api/tokens/reservations/{id}/release", post(reservations::release_for_user))
}

fn unknown_user() -> Problem {
    Problem::new(Code::UnknownUser, "there is no such user")
}

fn user_missing() -> Problem {
    Problem::field("#/user_id", "required", "name the user by user_id or external_user_id")
}

fn bad_field(error: FieldError) -> Problem {
    Rejection::Invalid(vec![error]).into()
}
