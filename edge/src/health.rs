//! Whether the process can do its work.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::Serialize;

use crate::json;
use crate::routes::Routes;

/// A check that takes longer has failed: whoever asks has a deadline of their own.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How one part of the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As it should be.
    Good,
    /// It works, with less than it should have: ready all the same.
    Degraded(String),
    /// It does not work: not ready.
    Failed(String),
}

/// A part of the process that can say how it is.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// Short and stable, such as `event_log`.
    fn name(&self) -> &'static str;

    /// How it is now. Details are shown to whoever asks: nothing secret in them.
    async fn check(&self) -> Condition;
}

/// All checks of the process.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<Vec<Arc<dyn HealthCheck>>>,
}

#[derive(Serialize)]
struct Report {
    success: bool,
    ready: bool,
    checks: Vec<CheckReport>,
    degraded: Vec<&'static str>,
}

#[derive(Serialize)]
struct CheckReport {
    name: &'static str,
    ok: bool,
    detail: Option<String>,
}

impl Health {
    /// Ready when none of these has failed.
    pub fn new(checks: Vec<Arc<dyn HealthCheck>>) -> Self {
        Self { checks: Arc::new(checks) }
    }

    /// `GET /health/live` and `GET /health/ready`.
    pub fn routes(&self) -> Routes {
        Routes::new()
            .route("/health/live", get(live))
            .route("/health/ready", get(ready))
            .with_state(self.clone())
    }

    async fn report(&self) -> Report {
        let conditions = futures::future::join_all(self.checks.iter().map(|check| async {
            let checked = tokio::time::timeout(CHECK_TIMEOUT, check.check()).await;
            checked.unwrap_or_else(|_| Condition::Failed("no answer in time".into()))
        }));
        let mut report = Report { success: true, ready: true, checks: vec![], degraded: vec![] };
        for (check, condition) in self.checks.iter().zip(conditions.await) {
            let name = check.name();
            let (ok, detail) = match condition {
                Condition::Good => (true, None),
                Condition::Degraded(detail) => {
                    report.degraded.push(name);
                    (true, Some(detail))
                }
                Condition::Failed(detail) => {
                    report.ready = false;
                    report.success = false;
                    (false, Some(detail))
                }
            };
            report.checks.push(CheckReport { name, ok, detail });
        }
        report
    }
}

async fn live() -> Response {
    json::response(StatusCode::OK, &serde_json::json!({"success": true, "live": true}))
}

async fn ready(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json::response(status, &report)
}
