//! What both HTTP services share: who calls, how a body is read, how an answer or a refusal looks,
//! and how a listener is served and drained.
//!
//! Boundary: it knows HTTP and the ports of accounts, and nothing of usage or quotas beyond turning
//! their errors into problem bodies. It never names a store, and never decides what a caller may do
//! in a service: it only says who they are.

mod app;
mod auth;
pub mod body;
mod client_address;
mod clock;
mod code;
mod health;
pub mod json;
pub mod ops;
mod problem;
mod query;
mod request_id;
mod routes;
mod serve;
mod success;
pub mod telemetry;
mod throttle;
mod unread;

pub use app::{App, app};
pub use auth::{Caller, Verifier, access_token, api_key};
pub use client_address::{ClientAddress, Network, NotANetwork};
pub use clock::SystemClock;
pub use code::Code;
pub use health::{Condition, Health, HealthCheck};
pub use problem::{At, FieldProblem, Problem};
pub use query::{Path, Query};
pub use request_id::{request_id, trace_parent};
pub use routes::Routes;
pub use serve::{Limits, serve};
pub use success::{Success, created, ok};
