//! The plan and model catalogues: data, read from TOML and checked before anything starts.

use std::collections::HashMap;

use serde::Deserialize;

use super::{OverLimit, Plan, PlanName, Totals};

/// A tier of models: a plan reaches its tier and all below it. Smaller is lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(pub u8);

/// A catalogue file that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCatalogue(String);

/// Which models there are and in which tier: exact names first, then the longest prefix.
#[derive(Clone, Debug)]
pub struct ModelCatalogue {
    tiers: Vec<String>,
    names: HashMap<String, Tier>,
    /// Longest first.
    prefixes: Vec<(String, Tier)>,
    unknown: Option<Tier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    tier: Vec<TierEntry>,
    unknown_model_tier: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierEntry {
    name: String,
    #[serde(default)]
    models: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
}

impl ModelCatalogue {
    /// The catalogue that the program brings along.
    pub const DEFAULT_TOML: &'static str = include_str!("../../models.toml");

    /// Reads and checks a catalogue.
    ///
    /// # Errors
    /// [`BadCatalogue`] says what is wrong with the file.
    pub fn from_toml(text: &str) -> Result<Self, BadCatalogue> {
        let file: ModelFile =
            toml::from_str(text).map_err(|error| BadCatalogue(error.to_string()))?;
        if file.tier.is_empty() || file.tier.len() > usize::from(u8::MAX) {
            return Err(BadCatalogue("must have 1 to 255 [[tier]] tables".into()));
        }
        let mut catalogue =
            Self { tiers: vec![], names: HashMap::new(), prefixes: vec![], unknown: None };
        for (entry, number) in file.tier.into_iter().zip(0u8..) {
            catalogue.add_tier(entry, Tier(number))?;
        }
        catalogue.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        if let Some(name) = file.unknown_model_tier {
            let tier = catalogue.tier_named(&name);
            let wrong = || BadCatalogue(format!("unknown_model_tier: there is no tier {name:?}"));
            catalogue.unknown = Some(tier.ok_or_else(wrong)?);
        }
        Ok(catalogue)
    }

    fn add_tier(&mut self, entry: TierEntry, tier: Tier) -> Result<(), BadCatalogue> {
        if self.tiers.contains(&entry.name) {
            return Err(BadCatalogue(format!("tier {:?} stands twice", entry.name)));
        }
        for name in entry.models {
            if name.is_empty() || self.names.insert(name.clone(), tier).is_some() {
                return Err(BadCatalogue(format!("model {name:?} is empty or stands twice")));
            }
        }
        for prefix in entry.prefixes {
            if prefix.is_empty() || self.prefixes.iter().any(|(other, _)| *other == prefix) {
                return Err(BadCatalogue(format!("prefix {prefix:?} is empty or stands twice")));
            }
            self.prefixes.push((prefix, tier));
        }
        self.tiers.push(entry.name);
        Ok(())
    }

    /// The same catalogue, with models that it does not know in the tier of that name.
    ///
    /// # Errors
    /// [`BadCatalogue`] when there is no such tier.
    pub fn with_unknown_in(mut self, tier: &str) -> Result<Self, BadCatalogue> {
        let missing = || BadCatalogue(format!("there is no model tier {tier:?}"));
        self.unknown = Some(self.tier_named(tier).ok_or_else(missing)?);
        Ok(self)
    }

    /// The tier of a model; `None` when the model is unknown.
    pub fn tier_of(&self, model: &str) -> Option<Tier> {
        self.names.get(model).copied().or_else(|| {
            let named = self.prefixes.iter().find(|(prefix, _)| model.starts_with(prefix.as_str()));
            named.map(|(_, tier)| *tier).or(self.unknown)
        })
    }

    /// The tier of that name, such as `gpt-4`.
    pub fn tier_named(&self, name: &str) -> Option<Tier> {
        let place = self.tiers.iter().position(|tier| tier == name)?;
        u8::try_from(place).ok().map(Tier)
    }

    /// The name of a tier.
    pub fn name_of(&self, tier: Tier) -> &str {
        self.tiers.get(usize::from(tier.0)).map_or("", String::as_str)
    }
}

/// Which plans there are, cheapest first.
#[derive(Clone, Debug)]
pub struct PlanCatalogue {
    plans: Vec<Plan>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    plan: Vec<PlanEntry>,
}

/// A limit that is left out is unlimited.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanEntry {
    name: String,
    tokens: Option<u64>,
    chat_messages: Option<u64>,
    plagiarism_checks: Option<u64>,
    prompts_generated: Option<u64>,
    max_model_tier: String,
    #[serde(default)]
    over_limit: OverLimit,
    #[serde(default)]
    free: bool,
    #[serde(default = "alert_at")]
    alert_at: Vec<u16>,
}

/// Most of it, almost all, and all: where events that do not fit are refused, tokens rarely end at the
/// very limit.
fn alert_at() -> Vec<u16> {
    vec![80, 95, 100]
}

impl PlanCatalogue {
    /// The catalogue that the program brings along.
    pub const DEFAULT_TOML: &'static str = include_str!("../../plans.toml");

    /// Reads and checks a catalogue; tiers are those of `models`.
    ///
    /// # Errors
    /// [`BadCatalogue`] says what is wrong with the file: there must be a plan `free`, marked
    /// `free = true`, no name twice, and only tiers that `models` has.
    pub fn from_toml(text: &str, models: &ModelCatalogue) -> Result<Self, BadCatalogue> {
        let file: PlanFile =
            toml::from_str(text).map_err(|error| BadCatalogue(error.to_string()))?;
        let mut plans: Vec<Plan> = Vec::with_capacity(file.plan.len());
        for entry in file.plan {
            let tier = models.tier_named(&entry.max_model_tier).ok_or_else(|| {
                let (name, tier) = (&entry.name, &entry.max_model_tier);
                BadCatalogue(format!("plan {name:?}: there is no model tier {tier:?}"))
            })?;
            if entry.name.is_empty() || plans.iter().any(|plan| plan.name.as_str() == entry.name) {
                return Err(BadCatalogue(format!(
                    "plan {:?} is empty or stands twice",
                    entry.name
                )));
            }
            let ascends = entry.alert_at.is_sorted_by(|one, next| one < next);
            if !ascends || !entry.alert_at.iter().all(|at| (1..=1000).contains(at)) {
                let name = &entry.name;
                return Err(BadCatalogue(format!(
                    "plan {name:?}: alert_at must be ascending percentages from 1 to 1000"
                )));
            }
            plans.push(Plan {
                name: PlanName::new(&entry.name),
                token_limit: entry.tokens,
                request_limits: [
                    entry.chat_messages,
                    entry.plagiarism_checks,
                    entry.prompts_generated,
                ],
                tier,
                over_limit: entry.over_limit,
                free: entry.free,
                alert_at: entry.alert_at,
            });
        }
        if !plans.iter().any(|plan| plan.name.as_str() == "free" && plan.free) {
            return Err(BadCatalogue("must have a plan \"free\" with free = true".into()));
        }
        Ok(Self { plans })
    }

    /// The plan of that name.
    pub fn get(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.name.as_str() == name)
    }

    /// The plan of whoever has no other.
    pub fn free(&self) -> &Plan {
        // `from_toml` made sure that there is one; the first plan is never reached.
        self.get("free").unwrap_or(&self.plans[0])
    }

    /// All plans, in the order of the file: cheapest first.
    pub fn all(&self) -> &[Plan] {
        &self.plans
    }

    /// The cheapest plan beyond `current` that reaches `tier` and holds `asked` on top of `used`:
    /// for a refusal's `upgrade`.
    pub fn upgrade_from(
        &self,
        current: &PlanName,
        tier: Tier,
        used: &Totals,
        asked: &Totals,
    ) -> Option<&Plan> {
        let beyond = self.plans.iter().position(|plan| plan.name == *current)? + 1;
        let wanted = used.plus(*asked)?;
        self.plans[beyond..].iter().find(|plan| {
            let holds = |limit: Option<u64>, wanted| limit.is_none_or(|limit| wanted <= limit);
            let requests = plan.request_limits.iter().zip(wanted.requests).zip(asked.requests);
            plan.tier >= tier
                && holds(plan.token_limit, wanted.tokens)
                // A request type that is not asked for does not matter.
                && requests.fold(true, |ok, ((limit, all), new)| ok && (new == 0 || holds(*limit, all)))
        })
    }
}

#[cfg(test)]
mod tests;
