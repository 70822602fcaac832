//! Whether events can be recorded.

use std::sync::Arc;

use async_trait::async_trait;
use edge::{Condition, HealthCheck};
use stores::sqlite::SqliteEventLog;

/// The event log as operators see it.
///
/// Degraded and not failed when it does not commit (no space, a lock): reports and accounts are
/// served all the same.
pub(super) struct LogHealth(pub(super) Arc<SqliteEventLog>);

#[async_trait]
impl HealthCheck for LogHealth {
    fn name(&self) -> &'static str {
        "event_log"
    }

    async fn check(&self) -> Condition {
        if self.0.is_failing() {
            let detail = "the last commit failed: tracking answers 503".to_owned();
            return Condition::Degraded(detail);
        }
        Condition::Good
    }
}
