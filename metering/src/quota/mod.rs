//! Plans, models, and the admission of an event against what is left of a plan.

mod admission;
mod catalogue;
mod counter;
mod epochs;
mod plan;
mod seeds;

pub use admission::{Closed, Counter, Miss, USERS_MAX};
pub use catalogue::{BadCatalogue, ModelCatalogue, PlanCatalogue, Tier};
pub use counter::{
    ADMISSION_WINDOW, Admission, CounterUser, Grant, Held, Hold, HoldOutcome, InFlight, MARGIN,
    QuotaCounter, Refused, Standing, Synced, Trust, UserTotals, Verdict,
};
pub use epochs::{Epoch, Epochs};
pub use plan::{OverLimit, Plan, PlanName, Terms, Totals};
pub use seeds::{QuotaSeeds, Seeds};
