//! The port `QuotaCounter`: what an admission asks, and what it is told.

use std::time::Duration;

use async_trait::async_trait;

use super::{PlanName, Terms, Tier, Totals};
use crate::Unavailable;
use crate::accounts::UserId;
use crate::time::{Period, Timestamp};
use crate::usage::{ContentDigest, Flags, IdDigest, Offset, Partition, RequestType, Settled};

/// How long after its admission a record may still reach the log and count.
pub const ADMISSION_WINDOW: Duration = Duration::from_secs(10);

/// How far log time may step back.
pub const MARGIN: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The user: even a settled event must fit.
    User,
    /// A service with scope `ingest`: a settled event is what was consumed, so it always fits.
    Service,
}

/// One event that asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whose.
    pub user_id: UserId,
    /// The month of the event.
    pub period: Period,
    /// Which event.
    pub id_digest: IdDigest,
    /// With which content.
    pub content_digest: ContentDigest,
    /// Which request counter.
    pub request_type: RequestType,
    /// Prompt and completion tokens.
    pub tokens: u64,
    /// The model's tier.
    pub tier: Tier,
    /// Who asks.
    pub trust: Trust,
    /// The hold that it settles: [`IdDigest::of_hold`].
    pub settles: Option<IdDigest>,
    /// Already refused for another reason (time, unknown model): takes nothing, and is only
    /// compared with what is in flight, because an id in flight is told before any refusal.
    pub barred: bool,
}

/// How much of a plan is used, what is in flight included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The plan.
    pub plan: PlanName,
    /// Used in the period: ledger, in flight and held.
    pub used: Totals,
    /// `None` is unlimited.
    pub token_limit: Option<u64>,
    /// Indexed by [`RequestType::index`].
    pub request_limits: [Option<u64>; 3],
}

/// An event was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// By the counter's clock.
    pub admitted_at: Timestamp,
    /// The counter knew everything below this offset as counted.
    pub cursor: Offset,
    /// `over_limit`, `over_hold`.
    pub flags: Flags,
    /// Tokens above the hold; 0 unless flagged.
    pub over_hold: u64,
    /// With this event in it.
    pub standing: Standing,
}

/// Why an event or a hold was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The plan does not reach the model's tier.
    ModelNotInPlan,
    /// The requests of its type are used up.
    RequestLimit,
    /// The tokens do not fit.
    TokenLimit,
    /// It was barred, and nothing with its id is in flight.
    Barred,
}

/// The answer to one [`Admission`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let in: an entry is in flight until the ledger has it.
    Granted(Grant),
    /// The same event is in flight already: publish it again, it takes nothing. Its
    /// `admitted_at` is new; flags and standing are those of the entry.
    Repeated(Grant),
    /// Another event with the same id is in flight, in this month or another.
    Conflict(Standing),
    /// Not let in.
    Refused(Refused, Standing),
    /// There is no such user, or not any more.
    UnknownUser,
}

/// A reservation that asks to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Whose.
    pub user_id: UserId,
    /// The month in which it stands: that of the present.
    pub period: Period,
    /// [`IdDigest::of_hold`].
    pub id_digest: IdDigest,
    /// [`ContentDigest::of_hold`].
    pub content_digest: ContentDigest,
    /// Holds one request of this type too.
    pub request_type: RequestType,
    /// How many tokens.
    pub tokens: u64,
    /// The model's tier.
    pub tier: Tier,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// A hold that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many tokens.
    pub tokens: u64,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// With the hold in it.
    pub standing: Standing,
}

/// The answer to a [`Hold`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldOutcome {
    /// It stands.
    Held(Held),
    /// The same hold stands already: this is the first one.
    Repeated(Held),
    /// Another hold with the same id stands.
    Conflict,
    /// It does not fit.
    Refused(Refused, Standing),
    /// There is no such user, or not any more.
    UnknownUser,
}

/// One user's totals in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserTotals {
    /// Who.
    pub user_id: UserId,
    /// In which month.
    pub period: Period,
    /// What the ledger holds.
    pub totals: Totals,
}

/// What the ledger now holds, for the counter to take over.
#[derive(Clone, Debug, PartialEq)]
pub struct Synced {
    /// Of which partition.
    pub partition: Partition,
    /// Everything below is counted.
    pub cursor: Offset,
    /// See `EventSource::watermark`.
    pub watermark: Timestamp,
    /// The new totals of everybody in the flush.
    pub totals: Vec<UserTotals>,
    /// Entries that are in flight no more.
    pub settled: Vec<Settled>,
}

/// An entry of the counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Which event or hold.
    pub id_digest: IdDigest,
    /// Its tokens.
    pub tokens: u64,
    /// When it was let in.
    pub admitted_at: Timestamp,
    /// A hold's end; `None` for an event.
    pub hold_expires_at: Option<Timestamp>,
}

/// What the counter knows of one user and period, for reconciliation (R5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterUser {
    /// Who and when, and the ledger's totals as the counter knows them.
    pub ledger: UserTotals,
    /// The cursor these totals stand at.
    pub cursor: Offset,
    /// What is on its way.
    pub in_flight: Vec<InFlight>,
}

/// Each user's quota: what the ledger has counted plus what is on its way to the log.
///
/// Admissions are atomic per user: of two that together pass a limit, one is refused. The adapter
/// reads totals and terms that it does not have by itself (see `QuotaSeeds`), so no answer here is
/// "ask again". Until [`Self::open`] was called everything else is `Unavailable`.
#[async_trait]
pub trait QuotaCounter: Send + Sync {
    /// Lets in every event it can, in order; answers in the order asked.
    ///
    /// What is counted is in flight no more. So the ledger must be asked for the id *after* the
    /// answer: before a client hears `Conflict` or `Refused`, and after `Granted` or `Repeated`
    /// when the grant's cursor is beyond that of an earlier look. `Unavailable` also when an event
    /// would be refused while the same one is in flight in another month.
    async fn admit(&self, asked: &[Admission]) -> Result<Vec<Verdict>, Unavailable>;

    /// [`Self::admit`] for events that have nothing to do with each other, so that none waits or fails
    /// for another: `None` for what cannot be decided at once, and [`Self::admit`] is to be asked
    /// about that.
    async fn admit_at_once(&self, asked: &[Admission]) -> Vec<Option<Verdict>>;

    /// Takes back entries of events that were found in the ledger after they were let in, and that
    /// are therefore not published. An entry that is gone is passed over.
    ///
    /// Only what the caller itself was `Granted`, and only if it was counted *below the cursor of
    /// that grant*: then the totals had it already. What was counted since, through another
    /// request, leaves with the sync that brings its totals; to take it back sooner would free
    /// its room for a moment.
    async fn withdraw(&self, entries: &[Settled]) -> Result<(), Unavailable>;

    /// Holds tokens and one request before a model call.
    async fn hold(&self, asked: &Hold) -> Result<HoldOutcome, Unavailable>;

    /// Ends a hold of this user, wherever it stands; `false` when there is none (any more).
    async fn release(&self, user: UserId, id: IdDigest) -> Result<bool, Unavailable>;

    /// Where a user stands; `None` when there is no such user.
    async fn usage(&self, user: UserId, period: Period) -> Result<Option<Standing>, Unavailable>;

    /// Puts terms in force for the very next admission, unless newer ones are. `None`: the user is
    /// no more.
    async fn set_terms(&self, user: UserId, terms: Option<Terms>) -> Result<(), Unavailable>;

    /// Takes over what the ledger now holds: totals become the newer ones by cursor, settled
    /// entries leave, and only then the cursor and the watermark move forward. Repeating it changes
    /// nothing; it never makes a user known. `false`: nothing was changed, for the partition is not
    /// open any more under the name by which this process serves it; it must be closed and opened.
    async fn sync(&self, synced: &Synced) -> Result<bool, Unavailable>;

    /// Whether the partition is open, so that this process, its new owner, can serve it as it is:
    /// up to which offset the counter knows what is counted. The caller brings the rest by
    /// [`Self::sync`]. `None`: it must be closed and opened.
    async fn take_over(&self, partition: Partition) -> Result<Option<Offset>, Unavailable>;

    /// Closes a partition. What was let in before may reach the log for as long as the answer says:
    /// only what the log holds *after* that wait is all of it.
    async fn close(&self, partition: Partition) -> Result<Duration, Unavailable>;

    /// Starts to serve a partition: everything in its log is counted up to `cursor`, and nothing is
    /// in flight. Forgets all it knew of the partition. `false`: somebody else has closed it since.
    async fn open(
        &self,
        partition: Partition,
        cursor: Offset,
        watermark: Timestamp,
    ) -> Result<bool, Unavailable>;

    /// Everything it knows, for reconciliation.
    async fn audit(&self) -> Result<Vec<CounterUser>, Unavailable>;
}
