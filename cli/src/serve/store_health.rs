//! Whether a store does its work, as operators see it.

use async_trait::async_trait;
use edge::{Condition, HealthCheck};

/// A store that serves with less while it fails: degraded and not failed, for reports and accounts
/// are served all the same.
pub(crate) struct StoreHealth {
    name: &'static str,
    fault: Box<dyn Fn() -> Option<&'static str> + Send + Sync>,
}

impl StoreHealth {
    /// `fault` says what is lacking now, if anything is.
    pub(crate) fn new(
        name: &'static str,
        fault: impl Fn() -> Option<&'static str> + Send + Sync + 'static,
    ) -> Self {
        Self { name, fault: Box::new(fault) }
    }
}

#[async_trait]
impl HealthCheck for StoreHealth {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn check(&self) -> Condition {
        let fault = (self.fault)();
        fault.map_or(Condition::Good, |fault| Condition::Degraded(fault.to_owned()))
    }
}
