//! `QuotaCounter` in the process's own memory.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{
    ADMISSION_WINDOW, Admission, Closed, Counter, CounterUser, Hold, HoldOutcome, Miss,
    QuotaCounter, QuotaSeeds, Standing, Synced, Terms, Verdict,
};
use metering::time::{Clock, Period, Timestamp};
use metering::usage::{IdDigest, Offset, Partition, Settled, TotalsAt};

/// The label of this store in `tokenmeter_store_errors_total`.
const STORE: &str = "quota_counter";

/// Admissions under one lock: a large batch must not keep single events waiting for long.
const ADMISSIONS_PER_LOCK: usize = 256;

/// How often one call reads what is missing. Each round fails only when the ledger moved on
/// while it was read; too few refuse a busy user, too many hide a store that always lags.
const SEED_ROUNDS_MAX: usize = 5;

/// Keeps every quota in memory. Nothing of it is stored: at a start it is opened at the cursor to
/// which the log was counted, and what it meets after that it reads from its seeds.
pub struct MemoryQuotaCounter {
    counter: Mutex<Counter>,
    seeds: Arc<dyn QuotaSeeds>,
    clock: Arc<dyn Clock>,
}

/// Who and what must be read before a question can be answered.
#[derive(Default)]
struct Missing {
    terms: HashSet<UserId>,
    totals: HashSet<(UserId, Period)>,
}

impl MemoryQuotaCounter {
    /// A counter for the single partition of this process; it serves once it is opened.
    pub fn new(seeds: Arc<dyn QuotaSeeds>, clock: Arc<dyn Clock>) -> Self {
        Self { counter: Mutex::new(Counter::new(NonZeroU32::MIN)), seeds, clock }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Counter>, Unavailable> {
        // A panic in the middle of a change may have left sums that are wrong.
        self.counter.lock().map_err(|_| Unavailable::new(STORE, "its state was left damaged"))
    }

    /// Asks until nothing is missing. `None`: the seeds do not know the user.
    async fn ask<T>(
        &self,
        user: UserId,
        period: Period,
        question: impl Fn(&mut Counter, Timestamp) -> Result<T, Miss> + Send,
    ) -> Result<Option<T>, Unavailable> {
        let mut unknown = HashSet::new();
        for _ in 0..SEED_ROUNDS_MAX {
            let answer = question(&mut *self.lock()?, self.clock.now());
            let mut missing = Missing::default();
            match answer {
                Ok(answer) => return Ok(Some(answer)),
                Err(miss) => missing.add(user, period, miss)?,
            }
            if missing.terms.contains(&user) && unknown.contains(&user) {
                return Ok(None);
            }
            self.seed(&missing, &mut unknown).await?;
        }
        Err(outrun())
    }

    /// Reads what is missing, many users at a time and outside the lock, and notes who does not
    /// exist.
    async fn seed(
        &self,
        missing: &Missing,
        unknown: &mut HashSet<UserId>,
    ) -> Result<(), Unavailable> {
        let users: Vec<_> = missing.terms.iter().copied().collect();
        if !users.is_empty() {
            let found = self.seeds.terms(&users).await?;
            let mut counter = self.lock()?;
            for (user, terms) in users.into_iter().zip(found) {
                match terms {
                    Some(terms) => counter.seed_terms(user, terms),
                    None => drop(unknown.insert(user)),
                }
            }
        }
        let months: Vec<_> = missing.totals.iter().copied().collect();
        let months: Vec<_> =
            months.into_iter().filter(|(user, _)| !unknown.contains(user)).collect();
        if !months.is_empty() {
            let found = self.seeds.totals(&months).await?;
            let mut counter = self.lock()?;
            for ((user, period), TotalsAt { totals, cursor }) in months.into_iter().zip(found) {
                counter.seed_totals(user, period, totals, cursor);
            }
        }
        Ok(())
    }
}

impl Missing {
    fn add(&mut self, user: UserId, period: Period, miss: Miss) -> Result<(), Unavailable> {
        match miss {
            Miss::Closed(closed) => return Err(not_open(closed)),
            Miss::Undecided => {
                return Err(Unavailable::new(STORE, "the event is on its way already"));
            }
            Miss::Seeds { terms, totals } => {
                if terms {
                    self.terms.insert(user);
                }
                if totals {
                    self.totals.insert((user, period));
                }
            }
        }
        Ok(())
    }
}

fn not_open(closed: Closed) -> Unavailable {
    Unavailable::new(STORE, closed)
}

fn outrun() -> Unavailable {
    Unavailable::new(STORE, "what it reads is older than what it knows, again and again")
}

#[async_trait]
impl QuotaCounter for MemoryQuotaCounter {
    async fn admit(&self, asked: &[Admission]) -> Result<Vec<Verdict>, Unavailable> {
        let mut verdicts: Vec<Option<Verdict>> = vec![None; asked.len()];
        let mut waiting: Vec<usize> = (0..asked.len()).collect();
        let mut unknown = HashSet::new();
        for _ in 0..SEED_ROUNDS_MAX {
            let (mut missing, mut again) = (Missing::default(), Vec::new());
            for places in waiting.chunks(ADMISSIONS_PER_LOCK) {
                let (mut counter, now) = (self.lock()?, self.clock.now());
                for &place in places {
                    let one = &asked[place];
                    match counter.admit(one, now) {
                        Ok(verdict) => verdicts[place] = Some(verdict),
                        Err(Miss::Seeds { terms: true, .. }) if unknown.contains(&one.user_id) => {
                            verdicts[place] = Some(Verdict::UnknownUser);
                        }
                        Err(miss) => {
                            missing.add(one.user_id, one.period, miss)?;
                            again.push(place);
                        }
                    }
                }
            }
            waiting = again;
            if waiting.is_empty() {
                return Ok(verdicts.into_iter().flatten().collect());
            }
            self.seed(&missing, &mut unknown).await?;
        }
        Err(outrun())
    }

    async fn admit_at_once(&self, asked: &[Admission]) -> Vec<Option<Verdict>> {
        let mut verdicts = Vec::with_capacity(asked.len());
        for some in asked.chunks(ADMISSIONS_PER_LOCK) {
            match self.lock() {
                Ok(mut counter) => {
                    let now = self.clock.now();
                    verdicts.extend(some.iter().map(|one| counter.admit(one, now).ok()));
                }
                Err(_) => verdicts.extend(some.iter().map(|_| None)),
            }
        }
        verdicts
    }

    async fn withdraw(&self, entries: &[Settled]) -> Result<(), Unavailable> {
        self.lock()?.withdraw(entries).map_err(not_open)
    }

    async fn hold(&self, asked: &Hold) -> Result<HoldOutcome, Unavailable> {
        let question = |counter: &mut Counter, now| counter.hold(asked, now);
        let answer = self.ask(asked.user_id, asked.period, question).await?;
        Ok(answer.unwrap_or(HoldOutcome::UnknownUser))
    }

    async fn release(&self, user: UserId, id: IdDigest) -> Result<bool, Unavailable> {
        self.lock()?.release(user, &id, self.clock.now()).map_err(not_open)
    }

    async fn usage(&self, user: UserId, period: Period) -> Result<Option<Standing>, Unavailable> {
        let question = |counter: &mut Counter, now| counter.usage(user, period, now);
        Ok(self.ask(user, period, question).await?.flatten())
    }

    async fn set_terms(&self, user: UserId, terms: Option<Terms>) -> Result<(), Unavailable> {
        self.lock()?.set_terms(user, terms).map_err(not_open)
    }

    async fn sync(&self, synced: &Synced) -> Result<bool, Unavailable> {
        Ok(self.lock()?.sync(synced).is_ok())
    }

    async fn take_over(&self, partition: Partition) -> Result<Option<Offset>, Unavailable> {
        Ok(self.lock()?.cursor(partition))
    }

    async fn close(&self, partition: Partition) -> Result<Duration, Unavailable> {
        let was_open = self.lock()?.close(partition);
        // Who was let in by a process before this one reaches the log no more.
        Ok(if was_open { ADMISSION_WINDOW } else { Duration::ZERO })
    }

    async fn open(
        &self,
        partition: Partition,
        cursor: Offset,
        watermark: Timestamp,
    ) -> Result<bool, Unavailable> {
        self.lock()?.open(partition, cursor, watermark);
        Ok(true)
    }

    async fn audit(&self) -> Result<Vec<CounterUser>, Unavailable> {
        self.lock()?.audit().map_err(not_open)
    }
}
