//! A single node's stores in a directory of their own, with faults to switch on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aggregator::{Aggregator, Progress, Stopped};
use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{
    Admission, CounterUser, Hold, HoldOutcome, ModelCatalogue, OverLimit, PlanCatalogue, PlanName,
    QuotaCounter, QuotaSeeds, Standing, Synced, Terms, Tier, Trust, Verdict,
};
use metering::time::{Clock, ManualClock, Period, Timestamp};
use metering::usage::{
    AdmittedEvent, AlertRules, CommitError, Committed, Cursor, EventId, EventLog, Flags, Flush,
    Horizon, IdDigest, IdOrigin, LedgerLookup, LogRecord, ModelName, Offset, Partition,
    RequestType, SeenIds, Settled, TokenCounts, TotalsAt, UsageEvent, UsageLedger,
};
use stores::memory::MemoryQuotaCounter;
use stores::sqlite::{SqliteEventLog, SqliteLedger};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const PARTITION: Partition = Partition::SINGLE;

/// Longer than anything here takes: a condition that is not met by then has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// The stores of one process, and what they do wrong.
pub(crate) struct Rig {
    pub(crate) directory: Arc<TempDir>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) log: Arc<SqliteEventLog>,
    pub(crate) ledger: SqliteLedger,
    pub(crate) counter: Arc<MemoryQuotaCounter>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) aggregator: Aggregator,
}

/// What fails, and how often still.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) commits_lost: AtomicU32,
    pub(crate) answers_lost: AtomicU32,
    pub(crate) stolen: AtomicU32,
    pub(crate) syncs: AtomicU32,
    /// Whether a sync of totals gets no answer for now.
    pub(crate) syncs_hang: AtomicBool,
    pub(crate) take_overs: AtomicU32,
    /// How many flushes were asked for.
    pub(crate) commits: AtomicU32,
}

fn takes_place(fault: &AtomicU32) -> bool {
    fault.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn fault() -> Unavailable {
    Unavailable::new("rig", "a fault")
}

impl Rig {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_790_000_000_000)));
        Self::over(Arc::new(tempfile::tempdir().unwrap()), clock)
    }

    /// The process after a restart; all of the old one must be gone.
    pub(crate) fn over(directory: Arc<TempDir>, clock: Arc<ManualClock>) -> Self {
        let file = directory.path().join("log.db");
        let log = Arc::new(SqliteEventLog::open(&file, clock.clone()).unwrap());
        let ledger = SqliteLedger::open(directory.path()).unwrap();
        let seeds = Arc::new(Unlimited(ledger.clone()));
        let counter = Arc::new(MemoryQuotaCounter::new(seeds, clock.clone()));
        let faults = Arc::new(Faults::default());
        let aggregator = Aggregator {
            source: log.clone(),
            ledger: Arc::new(FaultyLedger { ledger: ledger.clone(), faults: faults.clone() }),
            alert_rules: Arc::new(AlertRules::of(&plans())),
            lookup: Arc::new(ledger.clone()),
            counter: Arc::new(FaultyCounter { counter: counter.clone(), faults: faults.clone() }),
            clock: clock.clone(),
            progress: Arc::new(Progress::new(clock.clone())),
            log_retention: Duration::from_secs(3600),
            flush_interval: Duration::from_millis(500),
        };
        Self { directory, clock, log, ledger, counter, faults, aggregator }
    }

    pub(crate) fn restart(self) -> Self {
        let Self { directory, clock, .. } = self;
        Self::over(directory, clock)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn sql(&self, file: &str, statements: &str) {
        rusqlite::Connection::open(self.file(file)).unwrap().execute_batch(statements).unwrap();
    }

    pub(crate) fn start(&self) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let running = self.aggregator.clone().run(async move { drop(stopped.await) });
        Running { stop, task: tokio::spawn(running) }
    }

    pub(crate) fn event(&self, id: &str) -> AdmittedEvent {
        let now = self.clock.now();
        let event = UsageEvent {
            user_id: user(),
            event_id: EventId::new(id).unwrap(),
            id_origin: IdOrigin::Client,
            request_type: RequestType::Chat,
            model: ModelName::new("gpt-4o"),
            tokens: TokenCounts { prompt: 100, completion: 20, cached: 0, reasoning: 0 },
            occurred_at: now,
            occurred_at_given: false,
            received_at: now,
            reservation_id: None,
            metadata: None,
        };
        AdmittedEvent {
            id_digest: event.id_digest(),
            content_digest: event.content_digest(),
            plan: PlanName::new("professional"),
            admitted_at: now,
            flags: Flags::default(),
            over_hold: 0,
            event,
        }
    }

    /// Straight to the log, as if the counter had let them in.
    pub(crate) async fn append(&self, ids: impl IntoIterator<Item = String>) {
        let events = ids.into_iter().map(|id| self.event(&id)).collect();
        self.log.append(events, None).await.unwrap();
    }

    /// As the door does it.
    pub(crate) async fn track(&self, id: &str) {
        let event = self.event(id);
        self.admit(&event).await;
        self.log.append(vec![event], None).await.unwrap();
    }

    pub(crate) async fn admit(&self, admitted: &AdmittedEvent) {
        let admission = Admission {
            user_id: admitted.event.user_id,
            period: admitted.event.period(),
            id_digest: admitted.id_digest,
            content_digest: admitted.content_digest,
            request_type: admitted.event.request_type,
            tokens: admitted.event.tokens.total(),
            tier: Tier::default(),
            trust: Trust::User,
            settles: None,
            barred: false,
        };
        let verdicts = self.counter.admit(&[admission]).await.unwrap();
        assert!(matches!(verdicts[..], [Verdict::Granted(_)]), "{verdicts:?}");
    }

    pub(crate) fn month(&self) -> Period {
        Period::of(self.clock.now())
    }

    /// What the ledger has counted for the user: requests, and the cursor.
    pub(crate) async fn counted(&self) -> (u64, Offset) {
        let at = self.ledger.totals(&[(user(), self.month())]).await.unwrap()[0];
        (at.totals.requests[0], at.cursor)
    }

    /// The user in the counter.
    pub(crate) async fn counter_user(&self) -> CounterUser {
        let audit = self.counter.audit().await.unwrap();
        audit.into_iter().find(|found| found.ledger.user_id == user()).unwrap()
    }

    pub(crate) async fn until_counted_to(&self, offset: u64) {
        until("the cursor is there", async || self.counted().await.1 >= Offset::new(offset)).await;
    }

    pub(crate) async fn until_serving(&self) {
        until("admissions begin", async || self.counter.audit().await.is_ok()).await;
    }

    pub(crate) async fn assert_books_balance(&self) {
        for book in aggregator::books(self.ledger.file()).await.unwrap() {
            assert!(book.balances() && book.compared > 0, "{book:?}");
        }
    }
}

pub(crate) fn user() -> UserId {
    UserId::from_bytes([9; 16])
}

pub(crate) fn numbered(name: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{name}-{number}")).collect()
}

/// Waits for a condition, with a deadline.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A running aggregator.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Stopped>>,
}

impl Running {
    /// A graceful end.
    pub(crate) async fn stop(self) -> Result<(), Stopped> {
        drop(self.stop);
        self.task.await.unwrap()
    }

    /// An end without warning, as near as it can be had in a process.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn ended(self) -> Result<(), Stopped> {
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap()
    }
}

/// The plans that the program brings along.
pub(crate) fn plans() -> PlanCatalogue {
    let models = ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap();
    PlanCatalogue::from_toml(PlanCatalogue::DEFAULT_TOML, &models).unwrap()
}

/// Everybody exists, without limits.
struct Unlimited(SqliteLedger);

#[async_trait]
impl QuotaSeeds for Unlimited {
    async fn terms(&self, users: &[UserId]) -> Result<Vec<Option<Terms>>, Unavailable> {
        let terms = Terms {
            version: 1,
            plan: PlanName::new("professional"),
            token_limit: None,
            request_limits: [None; 3],
            tier: Tier::default(),
            over_limit: OverLimit::Reject,
            valid_until: None,
        };
        Ok(vec![Some(terms); users.len()])
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        self.0.totals(users).await
    }
}

struct FaultyLedger {
    ledger: SqliteLedger,
    faults: Arc<Faults>,
}

#[async_trait]
impl UsageLedger for FaultyLedger {
    async fn take_over(&self, partition: Partition) -> Result<Cursor, Unavailable> {
        self.ledger.take_over(partition).await
    }

    fn release(&self, partition: Partition) {
        self.ledger.release(partition);
    }

    async fn seen(
        &self,
        partition: Partition,
        horizon: Horizon,
        records: &[LogRecord],
    ) -> Result<SeenIds, Unavailable> {
        self.ledger.seen(partition, horizon, records).await
    }

    fn horizon(&self, partition: Partition, now_in_force: Horizon) -> Horizon {
        self.ledger.horizon(partition, now_in_force)
    }

    async fn commit(&self, flush: Flush) -> Result<Committed, CommitError> {
        self.faults.commits.fetch_add(1, Ordering::SeqCst);
        if takes_place(&self.faults.commits_lost) {
            return Err(fault().into());
        }
        if takes_place(&self.faults.stolen) {
            self.ledger.commit(flush.clone()).await?;
        }
        let committed = self.ledger.commit(flush).await?;
        if takes_place(&self.faults.answers_lost) {
            return Err(fault().into());
        }
        Ok(committed)
    }
}

struct FaultyCounter {
    counter: Arc<MemoryQuotaCounter>,
    faults: Arc<Faults>,
}

#[async_trait]
impl QuotaCounter for FaultyCounter {
    async fn sync(&self, synced: &Synced) -> Result<bool, Unavailable> {
        let tells_totals = !synced.totals.is_empty();
        while tells_totals && self.faults.syncs_hang.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if tells_totals && takes_place(&self.faults.syncs) {
            return Err(fault());
        }
        self.counter.sync(synced).await
    }

    async fn admit(&self, asked: &[Admission]) -> Result<Vec<Verdict>, Unavailable> {
        self.counter.admit(asked).await
    }

    async fn admit_at_once(&self, asked: &[Admission]) -> Vec<Option<Verdict>> {
        self.counter.admit_at_once(asked).await
    }

    async fn withdraw(&self, entries: &[Settled]) -> Result<(), Unavailable> {
        self.counter.withdraw(entries).await
    }

    async fn hold(&self, asked: &Hold) -> Result<HoldOutcome, Unavailable> {
        self.counter.hold(asked).await
    }

    async fn release(&self, user: UserId, id: IdDigest) -> Result<bool, Unavailable> {
        self.counter.release(user, id).await
    }

    async fn usage(&self, user: UserId, period: Period) -> Result<Option<Standing>, Unavailable> {
        self.counter.usage(user, period).await
    }

    async fn set_terms(&self, user: UserId, terms: Option<Terms>) -> Result<(), Unavailable> {
        self.counter.set_terms(user, terms).await
    }

    async fn open(
        &self,
        partition: Partition,
        cursor: Offset,
        watermark: Timestamp,
    ) -> Result<bool, Unavailable> {
        self.counter.open(partition, cursor, watermark).await
    }

    async fn take_over(&self, partition: Partition) -> Result<Option<Offset>, Unavailable> {
        if takes_place(&self.faults.take_overs) {
            return Err(fault());
        }
        self.counter.take_over(partition).await
    }

    async fn close(&self, partition: Partition) -> Result<Duration, Unavailable> {
        self.counter.close(partition).await
    }

    async fn audit(&self) -> Result<Vec<CounterUser>, Unavailable> {
        self.counter.audit().await
    }
}
