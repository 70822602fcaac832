//! The few names that most records have.

use hashbrown::HashSet;
use metering::quota::PlanName;
use metering::usage::ModelName;

/// Names of models and plans of the records that are read together: each is kept once, not once for
/// each record. It grows with every name that is new to it.
#[derive(Debug, Default)]
pub struct Names {
    models: HashSet<ModelName>,
    plans: HashSet<PlanName>,
}

impl Names {
    pub(super) fn model(&mut self, name: &str) -> ModelName {
        self.models.get_or_insert_with(name, ModelName::new).clone()
    }

    pub(super) fn plan(&mut self, name: &str) -> PlanName {
        self.plans.get_or_insert_with(name, PlanName::new).clone()
    }
}
