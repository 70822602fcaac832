//! Reads what the counter does not have: whoever waits at a moment shares one read, for at a
//! month's start everybody is missing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::QuotaSeeds;
use metering::time::Period;
use metering::usage::{Partition, TotalsAt};

use super::library::Function;
use super::shared::{CALL_MAX, Shared};
use super::{STORE, wire};
use crate::together::{Gathering, Together};

const GATHERING: Gathering = Gathering { questions_max: 256, patience: Duration::ZERO };

/// Who and what must be read, and the nonce of the epoch that missed it: what is read is of use to
/// that epoch only, for a later one may have counted further.
#[derive(Clone, Default)]
pub(super) struct Missing {
    pub(super) terms: HashMap<UserId, u64>,
    pub(super) totals: HashMap<(UserId, Period), u64>,
}

impl Missing {
    pub(super) fn add(&mut self, user: UserId, period: Period, what: (bool, bool), nonce: u64) {
        let (terms, totals) = what;
        if terms {
            self.terms.insert(user, nonce);
        }
        if totals {
            self.totals.insert((user, period), nonce);
        }
    }
}

/// Hands what is missing to the task that reads.
pub(super) struct Seeder(Together<Missing, Arc<HashSet<UserId>>>);

/// What Redis is to take over, by partition and nonce.
type Found = BTreeMap<(Partition, u64), Vec<Vec<u8>>>;

impl Seeder {
    /// Starts the task; it ends with this.
    pub(super) fn start(shared: Arc<Shared>, seeds: Arc<dyn QuotaSeeds>) -> Self {
        let seed = move |waiting: Vec<Missing>| {
            let (shared, seeds) = (shared.clone(), seeds.clone());
            async move {
                let mut missing = Missing::default();
                for one in &waiting {
                    missing.terms.extend(&one.terms);
                    missing.totals.extend(&one.totals);
                }
                let unknown = Arc::new(seed(&shared, seeds.as_ref(), &missing).await?);
                Ok(vec![unknown; waiting.len()])
            }
        };
        Self(Together::start(STORE, GATHERING, seed))
    }

    /// Reads and sets what is missing; answers who does not exist.
    pub(super) async fn seed(&self, missing: Missing) -> Result<Arc<HashSet<UserId>>, Unavailable> {
        self.0.ask(missing).await
    }
}

async fn seed(
    shared: &Shared,
    seeds: &dyn QuotaSeeds,
    missing: &Missing,
) -> Result<HashSet<UserId>, Unavailable> {
    let (mut unknown, mut found) = (HashSet::new(), Found::new());
    let users: Vec<_> = missing.terms.iter().map(|(user, nonce)| (*user, *nonce)).collect();
    if !users.is_empty() {
        let ids: Vec<_> = users.iter().map(|(user, _)| *user).collect();
        for ((user, nonce), terms) in users.into_iter().zip(seeds.terms(&ids).await?) {
            match terms {
                Some(terms) => {
                    let place = (shared.partition_of(user), nonce);
                    found.entry(place).or_default().push(wire::terms(user, Some(&terms)));
                }
                None => drop(unknown.insert(user)),
            }
        }
    }
    let months = missing.totals.iter().filter(|((user, _), _)| !unknown.contains(user));
    let months: Vec<_> = months.map(|(month, nonce)| (*month, *nonce)).collect();
    if !months.is_empty() {
        let asked: Vec<_> = months.iter().map(|(month, _)| *month).collect();
        let totals = seeds.totals(&asked).await?;
        for (((user, period), nonce), TotalsAt { totals, cursor }) in months.into_iter().zip(totals)
        {
            let seed = wire::totals_seed(user, period, &totals, cursor);
            found.entry((shared.partition_of(user), nonce)).or_default().push(seed);
        }
    }
    set(shared, found).await?;
    Ok(unknown)
}

/// What comes too late is passed over by the function, and missed again.
async fn set(shared: &Shared, found: Found) -> Result<(), Unavailable> {
    let mut calls = Vec::new();
    for ((partition, nonce), seeds) in found {
        for seeds in seeds.chunks(CALL_MAX) {
            let mut arguments = vec![shared.now(), nonce.to_le_bytes().to_vec()];
            arguments.extend_from_slice(seeds);
            calls.push(shared.call(Function::Seed, partition, arguments));
        }
    }
    for reply in shared.run(&calls).await? {
        reply?;
    }
    Ok(())
}
