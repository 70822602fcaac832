//! Counts: folds the event log into the ledger, and tells the quota counter.
//!
//! [`Aggregator::run`] reads each partition in order, asks the ledger which ids it has counted,
//! folds (`metering::usage::fold`), commits, and syncs the counter. What is counted is a function
//! of the log alone: a crash anywhere, or a store that fails, only makes it begin again at the
//! ledger's cursor. [`books`] and [`Aggregator::counter_book`] compare the figures kept in several
//! places. [`AlertSender`] sends the alerts that commits have raised.
//!
//! Boundary: it knows the ports and no store, nor how a message travels; it decides nothing about an
//! event. It never counts past a record it could not place, and never starts anywhere but at the
//! cursor.

mod alerts;
mod backoff;
mod beat;
mod counting;
mod housekeeping;
mod progress;
mod reading;
mod reconcile;
mod routes;
mod run;
mod serving;
mod telemetry;
mod telling;
mod ticking;

pub use alerts::{AlertReceiver, AlertSender, Message};
pub use progress::{PartitionProgress, Progress};
pub use reconcile::{Book, Report, books, watch_books};
pub use routes::{ROUTES, routes};
pub use run::{Aggregator, Stopped};
pub use telemetry::describe;
