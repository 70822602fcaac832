//! The port `QuotaCounter` on Redis.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{
    Admission, CounterUser, Epochs, Hold, HoldOutcome, QuotaCounter, QuotaSeeds, Standing, Synced,
    Terms, Verdict,
};
use metering::time::{Clock, Period, Timestamp};
use metering::usage::{IdDigest, Offset, Partition, Settled};

use super::admitting::{Admitting, Decided};
use super::coalescer::{Answer, Coalescer};
use super::feed::{Feed, Voucher};
use super::library::Function;
use super::link::Server;
use super::outage::Outage;
use super::seeder::{Missing, Seeder};
use super::shared::{CALL_MAX, Reply, Shared};
use super::wire::{self, Told};
use super::{OnOutage, RedisSettings, unavailable};
use crate::failpoints::reached;

/// How often one call reads what is missing. Each round fails only when the ledger moved on
/// while it was read; too few refuse a busy user, too many hide a store that always lags.
const SEED_ROUNDS_MAX: usize = 5;

/// Every user's quota in Redis, shared by all processes.
///
/// What an admission takes is in flight even when its answer was lost on the way: nobody publishes
/// it, so it is forgotten by itself.
pub struct RedisQuotaCounter {
    pub(super) shared: Arc<Shared>,
    pub(super) feed: Arc<Feed>,
    coalescer: Coalescer,
    seeder: Seeder,
    /// Who lets in while it is away, if anybody does.
    outage: Option<Outage>,
    /// The nonces under which this process, as the owner, serves partitions.
    pub(super) names: Mutex<HashMap<Partition, u64>>,
}

impl RedisQuotaCounter {
    /// A counter that connects when it is first asked. Must be called within a Tokio runtime: it
    /// starts the tasks that send admissions, read seeds and follow the epochs.
    ///
    /// # Errors
    /// The URL cannot be understood.
    pub fn connect(
        settings: RedisSettings,
        seeds: Arc<dyn QuotaSeeds>,
        epochs: Arc<dyn Epochs>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Unavailable> {
        let server = Server::new(&settings)?;
        let outage = match settings.on_outage {
            OnOutage::Refuse => None,
            OnOutage::Record => Some(Outage::start(seeds.clone(), epochs.clone(), clock.clone())),
        };
        let feed = Feed::start(epochs, clock.clone(), settings.feed_delay, settings.feed_poll);
        let shared = Arc::new(Shared { server, settings, clock });
        let coalescer = Coalescer::start(shared.clone());
        let seeder = Seeder::start(shared.clone(), seeds);
        Ok(Self { shared, feed, coalescer, seeder, outage, names: Mutex::default() })
    }

    /// Whether this process sees which epochs are in force. Without it, it goes on with what it
    /// knows: degraded, for it would not hear that the server was replaced.
    pub fn in_touch(&self) -> bool {
        self.feed.in_touch()
    }

    /// Whether Redis answers, for readiness.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let link = self.shared.server.link().await?;
        self.shared.server.ask(&link, &redis::cmd("PING")).await.map(drop)
    }

    /// Asks about one user until nothing is missing. `None`: the seeds do not know the user.
    async fn ask<T>(
        &self,
        user: UserId,
        period: Period,
        question: impl Fn() -> (Function, Vec<Vec<u8>>),
        read: impl Fn(&[u8]) -> Result<Told<T>, Unavailable>,
    ) -> Result<Option<(T, Voucher)>, Unavailable> {
        let partition = self.shared.partition_of(user);
        let mut unknown = Arc::new(HashSet::new());
        for _ in 0..SEED_ROUNDS_MAX {
            let (function, arguments) = question();
            let call = self.shared.call(function, partition, arguments);
            let reply = self.shared.run_one(call).await?;
            let served = reply.served()?;
            let (nonce, admitted_at) = (served.nonce, Some(served.admitted_at));
            match read(reply.string(0)?)? {
                Told::Answer(answer) => {
                    return Ok(Some((answer, Voucher { partition, nonce, admitted_at })));
                }
                Told::Undecided => return Err(undecided()),
                Told::Missing { terms: true, .. } if unknown.contains(&user) => return Ok(None),
                Told::Missing { terms, totals } => {
                    let mut missing = Missing::default();
                    missing.add(user, period, (terms, totals), nonce);
                    unknown = self.seeder.seed(missing).await?;
                }
            }
        }
        Err(outrun())
    }

    /// One more round of an admission: what is missing afterwards must be seeded before the next.
    async fn admit_round(
        &self,
        admitting: &mut Admitting<'_>,
        unknown: &HashSet<UserId>,
    ) -> Result<Missing, Unavailable> {
        let waiting = std::mem::take(&mut admitting.waiting);
        let events = waiting.iter().filter_map(|place| admitting.asked.get(*place));
        let answers = self.coalescer.admit(&self.shared, events).await?;
        let mut missing = Missing::default();
        for (place, answer) in waiting.into_iter().zip(answers) {
            let one = &admitting.asked[place];
            let Answer { told, partition, nonce } = match answer {
                Ok(answer) => answer,
                Err(reason) => {
                    admitting.without_counter.push(place);
                    admitting.away = Some(reason);
                    continue;
                }
            };
            let verdict = match told {
                Told::Undecided => return Err(undecided()),
                Told::Missing { terms: true, .. } if unknown.contains(&one.user_id) => {
                    Verdict::UnknownUser
                }
                Told::Missing { terms, totals } => {
                    missing.add(one.user_id, one.period, (terms, totals), nonce);
                    admitting.waiting.push(place);
                    continue;
                }
                Told::Answer(verdict) => verdict,
            };
            admitting.decided[place] = Some(Decided { verdict, under: (partition, nonce) });
        }
        Ok(missing)
    }

    /// Whether what no counter has decided may be let in without one.
    ///
    /// # Errors
    /// There is something, and nothing may.
    fn may_do_without(&self, admitting: &Admitting<'_>) -> Result<(), Unavailable> {
        match &admitting.away {
            Some(reason) if self.outage.is_none() => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// Leaves undecided whatever a counter decided that is not in force.
    async fn vouch(&self, admitting: &mut Admitting<'_>) {
        let (vouchers, since) = (admitting.vouchers(), Instant::now());
        let all: Vec<_> = vouchers.values().copied().collect();
        if self.feed.vouch(&all, since).await.is_ok() {
            return;
        }
        for (epoch, voucher) in vouchers {
            if let Err(reason) = self.feed.vouch(&[voucher], since).await {
                admitting.withdraw(epoch, reason);
            }
        }
    }

    /// Leaves undecided what an epoch decided that the feed has not named: another look, while it
    /// cannot be seen, would hold up all the others.
    fn withdraw_unnamed(&self, admitting: &mut Admitting<'_>) {
        for (epoch, voucher) in admitting.vouchers() {
            if !self.feed.names(&voucher) {
                admitting
                    .withdraw(epoch, unavailable("it cannot be seen which epochs are in force"));
            }
        }
    }

    /// Months of one partition to settle, as calls.
    pub(super) fn settle_calls(
        &self,
        partition: Partition,
        nonce: &[u8],
        months: &[Vec<u8>],
    ) -> Vec<super::link::Call> {
        let units = |month: &Vec<u8>| 1 + month.len() / 16;
        let (mut calls, mut rest) = (Vec::new(), months);
        while !rest.is_empty() {
            let mut room = CALL_MAX;
            let fits = |month: &&Vec<u8>| {
                let fits = units(month) <= room;
                room = room.saturating_sub(units(month));
                fits
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            let mut arguments = vec![self.shared.now(), nonce.to_vec()];
            arguments.extend_from_slice(now);
            calls.push(self.shared.call(Function::Settle, partition, arguments));
            rest = later;
        }
        calls
    }
}

/// A month's settled entries, each once, in portions that fit into a call.
pub(super) fn with_settled(month: &[u8], mut ids: Vec<IdDigest>) -> Vec<Vec<u8>> {
    if ids.is_empty() {
        return vec![month.to_vec()];
    }
    let portion = |ids: &[IdDigest]| {
        let mut out = month.to_vec();
        ids.iter().for_each(|id| out.extend(id.0));
        out
    };
    // A record and its duplicate may leave at once.
    ids.sort_unstable();
    ids.dedup();
    ids.chunks(CALL_MAX / 2).map(portion).collect()
}

fn undecided() -> Unavailable {
    unavailable("the event is on its way already")
}

fn outrun() -> Unavailable {
    unavailable("what it reads is older than what it knows, again and again")
}

#[async_trait]
impl QuotaCounter for RedisQuotaCounter {
    async fn admit(&self, asked: &[Admission]) -> Result<Vec<Verdict>, Unavailable> {
        reached("counter::admit").await;
        let mut admitting = Admitting::of(asked);
        let mut unknown = Arc::new(HashSet::new());
        for _ in 0..SEED_ROUNDS_MAX {
            if admitting.waiting.is_empty() {
                break;
            }
            let missing = self.admit_round(&mut admitting, &unknown).await?;
            self.may_do_without(&admitting)?;
            if !admitting.waiting.is_empty() {
                unknown = self.seeder.seed(missing).await?;
            }
        }
        if !admitting.waiting.is_empty() {
            return Err(outrun());
        }
        reached("counter::admitted").await;
        self.vouch(&mut admitting).await;
        self.may_do_without(&admitting)?;
        let without_counter = match (&self.outage, &admitting.away) {
            (Some(outage), Some(why)) => {
                outage.admit(&admitting.asked_without_counter(), why).await?
            }
            _ => Vec::new(),
        };
        Ok(admitting.verdicts(without_counter))
    }

    async fn admit_at_once(&self, asked: &[Admission]) -> Vec<Option<Verdict>> {
        reached("counter::admit").await;
        let mut admitting = Admitting::of(asked);
        // Without an answer nothing is decided.
        let answers = self.coalescer.admit(&self.shared, asked.iter()).await.unwrap_or_default();
        for (decided, answer) in admitting.decided.iter_mut().zip(answers) {
            *decided = answer.ok().and_then(Decided::of);
        }
        reached("counter::admitted").await;
        if !self.feed.in_touch() {
            self.withdraw_unnamed(&mut admitting);
        }
        self.vouch(&mut admitting).await;
        admitting.decided.into_iter().map(|decided| decided.map(|one| one.verdict)).collect()
    }

    async fn withdraw(&self, entries: &[Settled]) -> Result<(), Unavailable> {
        let mut months: BTreeMap<_, Vec<IdDigest>> = BTreeMap::new();
        for one in entries {
            let month = (self.shared.partition_of(one.user_id), one.user_id, one.period);
            months.entry(month).or_default().push(one.id_digest);
        }
        let mut partitions: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
        for ((partition, user, period), ids) in months {
            let month = wire::settled_month(user, period, None);
            partitions.entry(partition).or_default().extend(with_settled(&month, ids));
        }
        let calls = partitions.iter();
        let calls: Vec<_> = calls
            .flat_map(|(partition, months)| self.settle_calls(*partition, b"", months))
            .collect();
        for reply in self.shared.run(&calls).await? {
            reply?.served()?;
        }
        Ok(())
    }

    async fn hold(&self, asked: &Hold) -> Result<HoldOutcome, Unavailable> {
        let question = || (Function::Hold, vec![self.shared.now(), wire::hold(asked)]);
        let answer = self.ask(asked.user_id, asked.period, question, wire::hold_outcome).await?;
        let Some((outcome, voucher)) = answer else { return Ok(HoldOutcome::UnknownUser) };
        self.feed.vouch(&[voucher], Instant::now()).await?;
        Ok(outcome)
    }

    async fn release(&self, user: UserId, id: IdDigest) -> Result<bool, Unavailable> {
        let partition = self.shared.partition_of(user);
        let arguments = vec![self.shared.now(), user.as_bytes().to_vec(), id.0.to_vec()];
        let call = self.shared.call(Function::Release, partition, arguments);
        let reply = self.shared.run_one(call).await?;
        self.vouch_for(partition, &reply).await?;
        Ok(reply.string(0)? == b"1")
    }

    async fn usage(&self, user: UserId, period: Period) -> Result<Option<Standing>, Unavailable> {
        let month = wire::of_user(user, period);
        let (id, number) = month.split_at(16);
        let question = || (Function::Usage, vec![self.shared.now(), id.to_vec(), number.to_vec()]);
        let answer = self.ask(user, period, question, wire::usage).await?;
        let Some((standing, voucher)) = answer else { return Ok(None) };
        // Nothing is passed on: an answer a moment old is good.
        let voucher = Voucher { admitted_at: None, ..voucher };
        self.feed.vouch(&[voucher], Instant::now()).await?;
        Ok(standing)
    }

    async fn set_terms(&self, user: UserId, terms: Option<Terms>) -> Result<(), Unavailable> {
        let partition = self.shared.partition_of(user);
        let arguments = vec![self.shared.now(), Vec::new(), wire::terms(user, terms.as_ref())];
        let call = self.shared.call(Function::Seed, partition, arguments);
        let reply = self.shared.run_one(call).await?;
        // A server that was replaced would confirm what is in force nowhere.
        self.vouch_for(partition, &reply).await
    }

    async fn sync(&self, synced: &Synced) -> Result<bool, Unavailable> {
        reached("counter::sync").await;
        self.take_over_totals(synced).await
    }

    async fn take_over(&self, partition: Partition) -> Result<Option<Offset>, Unavailable> {
        self.adopt(partition).await
    }

    async fn close(&self, partition: Partition) -> Result<Duration, Unavailable> {
        self.close_anew(partition).await
    }

    async fn open(
        &self,
        partition: Partition,
        cursor: Offset,
        watermark: Timestamp,
    ) -> Result<bool, Unavailable> {
        self.open_closed(partition, cursor, watermark).await
    }

    async fn audit(&self) -> Result<Vec<CounterUser>, Unavailable> {
        self.read_all().await
    }
}

impl RedisQuotaCounter {
    async fn vouch_for(&self, partition: Partition, reply: &Reply) -> Result<(), Unavailable> {
        let served = reply.served()?;
        let admitted_at = Some(served.admitted_at);
        let voucher = Voucher { partition, nonce: served.nonce, admitted_at };
        self.feed.vouch(&[voucher], Instant::now()).await
    }
}
