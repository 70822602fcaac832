//! Lets events in while the counter is away, where losing them would be worse than passing a limit.
//!
//! Only to let in is safe without the counter: to refuse is not, for an event may be on its way from
//! an earlier request whose answer was lost, and a client must never be told "refused" of what is
//! counted later. So whoever would be refused for another reason than a limit is asked to come again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{Admission, Grant, QuotaSeeds, Terms, Totals, Verdict};
use metering::time::{Clock, Period};
use metering::usage::{Flag, Flags, TotalsAt};
use tokio::sync::{mpsc, oneshot};

use super::unavailable;

/// Requests that share one read: while the counter is away each event needs one.
const JOBS_MAX: usize = 256;

/// Lets in by what the ledger and the accounts say.
pub(super) struct Outage {
    jobs: mpsc::Sender<Job>,
    clock: Arc<dyn Clock>,
}

type UserMonth = (UserId, Period);

/// Of who exists.
type Found = HashMap<UserMonth, (Terms, TotalsAt)>;

struct Job {
    months: Vec<UserMonth>,
    answer: oneshot::Sender<Result<Arc<Found>, Unavailable>>,
}

impl Outage {
    /// Starts the task that reads; it ends with the last sender.
    pub(super) fn start(seeds: Arc<dyn QuotaSeeds>, clock: Arc<dyn Clock>) -> Self {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        tokio::spawn(read_what_waits(seeds, waiting));
        Self { jobs, clock }
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
        let (answer, answered) = oneshot::channel();
        let gone = "the task that reads for an outage has ended";
        self.jobs.send(Job { months, answer }).await.map_err(|_| unavailable(gone))?;
        let found = answered.await.map_err(|_| unavailable(gone))??;
        asked.iter().map(|one| self.verdict(one, &found)).collect()
    }

    fn verdict(&self, asked: &Admission, found: &Found) -> Result<Verdict, Unavailable> {
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
            admitted_at: self.clock.now(),
            cursor: *cursor,
            flags: Flags::default().with(Flag::Unmetered),
            over_hold: 0,
            standing: terms.standing(used),
        }))
    }
}

async fn read_what_waits(seeds: Arc<dyn QuotaSeeds>, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while waiting.recv_many(&mut jobs, JOBS_MAX).await > 0 {
        let months = jobs.iter().flat_map(|job| job.months.iter().copied()).collect();
        let found = read(seeds.as_ref(), months).await.map(Arc::new);
        for job in jobs.drain(..) {
            // Whoever asked may have gone away.
            drop(job.answer.send(found.clone()));
        }
    }
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
