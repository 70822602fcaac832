//! Lets events in while the counter is away, where losing them would be worse than passing a limit.
//!
//! Only to let in is safe without the counter: to refuse is not, for an event may be on its way from
//! an earlier request whose answer was lost, and a client must never be told "refused" of what is
//! counted later. So whoever would be refused for another reason than a limit is asked to come again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{Admission, Epochs, Grant, QuotaSeeds, Terms, Totals, Verdict};
use metering::time::{Clock, Period, Timestamp};
use metering::usage::{Flag, Flags, TotalsAt};

use super::{STORE, unavailable};
use crate::together::{Gathering, Together};

/// While the counter is away each event needs a read.
const GATHERING: Gathering = Gathering { questions_max: 256, patience: Duration::ZERO };

type UserMonth = (UserId, Period);

/// Of who exists.
type Found = HashMap<UserMonth, (Terms, TotalsAt)>;

/// Lets in by what the ledger and the accounts say.
pub(super) struct Outage {
    reads: Together<Vec<UserMonth>, Arc<Found>>,
    clock: Arc<dyn Clock>,
}

impl Outage {
    /// Starts the task that reads; it ends with this.
    pub(super) fn start(
        seeds: Arc<dyn QuotaSeeds>,
        epochs: Arc<dyn Epochs>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let read = move |months: Vec<Vec<UserMonth>>| {
            let (seeds, epochs) = (seeds.clone(), epochs.clone());
            async move {
                if epochs.log_is_left().await? {
                    return Err(unavailable(
                        "the log is left for another: start this process anew",
                    ));
                }
                let all = months.iter().flatten().copied().collect();
                let found = Arc::new(read(seeds.as_ref(), all).await?);
                Ok(vec![found; months.len()])
            }
        };
        Self { reads: Together::start(STORE, GATHERING, read), clock }
    }

    /// Verdicts in the order asked: granted without a counter, or no such user. Nobody else hears
    /// why the counter could not give them.
    pub(super) async fn admit(
        &self,
        asked: &[&Admission],
        why: &Unavailable,
    ) -> Result<Vec<Verdict>, Unavailable> {
        metrics::counter!("tokenmeter_store_errors_total", "store" => why.store).increment(1);
        tracing::debug!(%why, events = asked.len(), "admitted without a counter");
        let months = asked.iter().map(|one| (one.user_id, one.period)).collect();
        // Before it is asked whether the log is left: whoever leaves it waits until nothing that was
        // let in before can still arrive.
        let admitted_at = self.clock.now();
        let found = self.reads.ask(months).await?;
        asked.iter().map(|one| verdict(one, &found, admitted_at)).collect()
    }
}

fn verdict(
    asked: &Admission,
    found: &Found,
    admitted_at: Timestamp,
) -> Result<Verdict, Unavailable> {
    let Some((terms, TotalsAt { totals, cursor })) = found.get(&(asked.user_id, asked.period))
    else {
        return Ok(Verdict::UnknownUser);
    };
    if asked.barred || asked.tier > terms.tier {
        return Err(unavailable("what may have to be refused waits until it is back"));
    }
    let this = Totals::of(asked.request_type, asked.tokens);
    let used = totals.plus(this).ok_or_else(|| unavailable("the totals are full"))?;
    Ok(Verdict::Granted(Grant {
        admitted_at,
        cursor: *cursor,
        flags: Flags::default().with(Flag::Unmetered),
        over_hold: 0,
        standing: terms.standing(used),
    }))
}

async fn read(seeds: &dyn QuotaSeeds, months: HashSet<UserMonth>) -> Result<Found, Unavailable> {
    let users: HashSet<_> = months.iter().map(|(user, _)| *user).collect();
    let users: Vec<_> = users.into_iter().collect();
    let terms = users.iter().copied().zip(seeds.terms(&users).await?);
    let terms: HashMap<_, _> = terms.filter_map(|(user, terms)| Some((user, terms?))).collect();
    let months: Vec<_> = months.into_iter().filter(|(user, _)| terms.contains_key(user)).collect();
    let totals = seeds.totals(&months).await?;
    let found = months.into_iter().zip(totals);
    Ok(found.filter_map(|(month, at)| Some((month, (terms.get(&month.0)?.clone(), at)))).collect())
}
