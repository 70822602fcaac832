//! The admission state machine: what the ledger holds plus what is on its way to it.
//!
//! A [`Counter`] is pure: no clock, no store, no waiting. What it does not have it names as a
//! [`Miss`]; the adapter reads it, seeds it and asks again. Because it only keeps *ledger + in
//! flight* it heals by itself: nothing is refunded, swept or reset at the end of a month, and
//! forgetting everything at a restart is safe once the log is counted to its end.
//!
//! Why an entry may be forgotten: no record reaches the log later than [`ADMISSION_WINDOW`] after
//! its admission, log time steps back by less than [`MARGIN`], and the watermark says how far
//! the log is counted. So an entry older than both before the watermark has no record to come.
//!
//! [`ADMISSION_WINDOW`]: super::ADMISSION_WINDOW
//! [`MARGIN`]: super::MARGIN

mod decide;
mod month;
mod users;

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use self::decide::Ready;
use self::users::{KnownTerms, Users};
use super::{
    Admission, CounterUser, Hold, HoldOutcome, InFlight, Standing, Synced, Terms, Totals,
    UserTotals, Verdict,
};
use crate::accounts::UserId;
use crate::time::{Period, Timestamp};
use crate::usage::{IdDigest, Offset, Partition, Settled};

/// How many users are kept whose events are all counted; beyond it they are read again when they
/// come back. Too small: the ledger is read for every event of a large installation. Too large:
/// half a kilobyte of memory for each.
pub const USERS_MAX: usize = 100_000;

/// A partition is not open yet: its log is still being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {0} is not counted to its end yet")]
pub struct Closed(pub Partition);

/// Why there is no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Ask again later.
    Closed(Closed),
    /// The event would be refused, but the same event is in flight in another month. If that one
    /// is counted this is a duplicate, and a refusal would be wrong; ask again when it is known.
    Undecided,
    /// Seed what is named ([`Counter::seed_terms`], [`Counter::seed_totals`]), then ask again.
    Seeds {
        /// The user's terms are not known, or not valid any more.
        terms: bool,
        /// The totals of the period are not known.
        totals: bool,
    },
}

impl From<Closed> for Miss {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

/// How far an open partition is counted.
#[derive(Clone, Copy, Debug)]
struct Served {
    cursor: Offset,
    watermark: Timestamp,
}

/// The state of every user of every partition.
#[derive(Clone, Debug)]
pub struct Counter {
    count: NonZeroU32,
    /// Indexed by partition number; `None` until opened.
    partitions: Vec<Option<Served>>,
    users: Users,
}

impl Counter {
    /// A counter for that many partitions, none of them open.
    pub fn new(partitions: NonZeroU32) -> Self {
        let length = usize::try_from(partitions.get()).unwrap_or(usize::MAX);
        let users = Users::with_room_for(USERS_MAX);
        Self { count: partitions, partitions: vec![None; length], users }
    }

    /// The same, keeping at most that many users who have nothing in flight.
    #[must_use]
    pub fn with_users_max(mut self, users_max: usize) -> Self {
        self.users = Users::with_room_for(users_max);
        self
    }

    /// Whether an event may be let in, and what that takes.
    ///
    /// Refusals in this order: the id is in flight, barred, tier, requests, tokens.
    ///
    /// # Errors
    /// [`Miss`] when something must be seeded first, or cannot be known yet.
    pub fn admit(&mut self, asked: &Admission, now: Timestamp) -> Result<Verdict, Miss> {
        let ready = self.ready(asked.user_id, asked.period, now)?;
        ready.map_or(Ok(Verdict::UnknownUser), |ready| ready.admit(asked))
    }

    /// Whether a hold may stand.
    ///
    /// # Errors
    /// [`Miss`] when something must be seeded first.
    pub fn hold(&mut self, asked: &Hold, now: Timestamp) -> Result<HoldOutcome, Miss> {
        let ready = self.ready(asked.user_id, asked.period, now)?;
        Ok(ready.map_or(HoldOutcome::UnknownUser, |ready| ready.hold(asked)))
    }

    /// Where a user stands; `None` when the user is no more.
    ///
    /// # Errors
    /// [`Miss`] when something must be seeded first.
    pub fn usage(
        &mut self,
        user: UserId,
        period: Period,
        now: Timestamp,
    ) -> Result<Option<Standing>, Miss> {
        Ok(self.ready(user, period, now)?.map(|ready| ready.standing()))
    }

    /// Ends a hold, wherever it stands; `false` when there is none (any more).
    ///
    /// # Errors
    /// [`Closed`] when the user's partition is not open.
    pub fn release(&mut self, user: UserId, id: &IdDigest, now: Timestamp) -> Result<bool, Closed> {
        self.served(self.partition_of(user))?;
        let Some(user) = self.users.get_mut(user) else { return Ok(false) };
        Ok(user.months.iter_mut().any(|month| month.release(id, now)))
    }

    /// Takes back entries of events that the ledger already knows. What is gone is passed over.
    ///
    /// # Errors
    /// [`Closed`] when a user's partition is not open; then nothing was taken back.
    pub fn withdraw(&mut self, entries: &[Settled]) -> Result<(), Closed> {
        for entry in entries {
            self.served(self.partition_of(entry.user_id))?;
        }
        entries.iter().for_each(|entry| self.leave(entry));
        Ok(())
    }

    /// Puts terms in force unless newer ones are; `None`: the user is no more, for good.
    ///
    /// # Errors
    /// [`Closed`] when the user's partition is not open.
    pub fn set_terms(&mut self, user: UserId, terms: Option<Terms>) -> Result<(), Closed> {
        self.served(self.partition_of(user))?;
        let terms = terms.map_or(KnownTerms::UserGone, KnownTerms::Terms);
        self.users.meet(user).learn(terms);
        Ok(())
    }

    /// Takes over terms that were read after a [`Miss`]. Newer ones stay: the read may have been
    /// slow, and whoever changed the plan meanwhile was promised the very next admission.
    ///
    /// A user that was *not* found is not remembered: it may exist a moment later.
    pub fn seed_terms(&mut self, user: UserId, terms: Terms) {
        if self.served(self.partition_of(user)).is_ok() {
            self.users.meet(user).learn(KnownTerms::Terms(terms));
        }
    }

    /// Takes over totals that were read after a [`Miss`], with the cursor they stand at.
    ///
    /// Only if the period is unknown, and only if the snapshot is not older than what this
    /// partition is counted to: events counted between the two have left, and nobody would bring
    /// their totals. A snapshot that is too old is dropped, and the next question is a miss again.
    pub fn seed_totals(&mut self, user: UserId, period: Period, totals: Totals, cursor: Offset) {
        let Ok(served) = self.served(self.partition_of(user)) else { return };
        if cursor >= served.cursor {
            self.users.meet(user).add_month(period, totals, cursor);
        }
    }

    /// Takes over what the ledger now holds. Repeating it changes nothing, and it never makes a
    /// user or a period known: their other totals would be missing.
    ///
    /// # Errors
    /// [`Closed`] when the partition is not open.
    pub fn sync(&mut self, synced: &Synced) -> Result<(), Closed> {
        self.settle(synced)?;
        // Last: whoever sees the new cursor must not find a counted event still in flight.
        self.advance(synced.partition, synced.cursor, synced.watermark)
    }

    /// The first part of [`Self::sync`]: totals become the newer ones, settled entries leave. Where
    /// the counter is another process this takes many calls, with others in between.
    ///
    /// # Errors
    /// [`Closed`] when the partition is not open.
    pub fn settle(&mut self, synced: &Synced) -> Result<(), Closed> {
        self.served(synced.partition)?;
        for new in &synced.totals {
            let month = self.users.get_mut(new.user_id).and_then(|user| user.month(new.period));
            if let Some(month) = month {
                month.take_over(new.totals, synced.cursor);
            }
        }
        synced.settled.iter().for_each(|entry| self.leave(entry));
        Ok(())
    }

    /// The last part of [`Self::sync`]: cursor and watermark move forward, never back.
    ///
    /// # Errors
    /// [`Closed`] when the partition is not open.
    pub fn advance(
        &mut self,
        partition: Partition,
        cursor: Offset,
        watermark: Timestamp,
    ) -> Result<(), Closed> {
        let served = self.slot_of(partition).and_then(Option::as_mut).ok_or(Closed(partition))?;
        served.cursor = served.cursor.max(cursor);
        served.watermark = served.watermark.max(watermark);
        Ok(())
    }

    /// Starts to serve a partition whose log is counted to its end, with nothing in flight.
    /// Forgets all that was known of its users. A partition that does not exist is passed over.
    pub fn open(&mut self, partition: Partition, cursor: Offset, watermark: Timestamp) {
        let (users, count) = (&mut self.users, self.count);
        users.forget_if(|user| partition_of(user, count) == partition);
        if let Some(slot) = self.slot_of(partition) {
            *slot = Some(Served { cursor, watermark });
        }
    }

    /// Up to where an open partition is counted; `None`: it is closed.
    pub fn cursor(&self, partition: Partition) -> Option<Offset> {
        self.served(partition).ok().map(|served| served.cursor)
    }

    /// Serves a partition no more, until it is opened again; `false`: it was closed.
    pub fn close(&mut self, partition: Partition) -> bool {
        self.slot_of(partition).is_some_and(|slot| slot.take().is_some())
    }

    /// Everything that is known, for reconciliation.
    ///
    /// # Errors
    /// [`Closed`] names the first partition that is not open.
    pub fn audit(&self) -> Result<Vec<CounterUser>, Closed> {
        for number in 0..self.count.get() {
            self.served(Partition::new(number))?;
        }
        let mut found = Vec::new();
        for (user_id, user) in self.users.iter() {
            found.extend(user.months.iter().map(|month| CounterUser {
                ledger: UserTotals { user_id, period: month.period, totals: month.ledger },
                cursor: month.cursor,
                in_flight: month.entries().map(InFlight::from).collect(),
            }));
        }
        Ok(found)
    }

    /// How many users are in memory.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Everything that a decision about this user and period needs; `None`: the user is no more.
    fn ready(
        &mut self,
        user: UserId,
        period: Period,
        now: Timestamp,
    ) -> Result<Option<Ready<'_>>, Miss> {
        let served = self.served(self.partition_of(user))?;
        let unknown = Miss::Seeds { terms: true, totals: true };
        let user = self.users.get_mut(user).ok_or(unknown)?;
        let at = user.months.iter().position(|month| month.period == period);
        let terms = match &user.terms {
            KnownTerms::UserGone => return Ok(None),
            KnownTerms::Terms(terms) if terms.valid_until.is_none_or(|end| now < end) => terms,
            KnownTerms::Terms(_) | KnownTerms::Unread => {
                return Err(Miss::Seeds { terms: true, totals: at.is_none() });
            }
        };
        let at = at.ok_or(Miss::Seeds { terms: false, totals: true })?;
        for month in &mut user.months {
            month.forget(served.watermark, now);
        }
        Ok(Some(Ready { terms, months: &mut user.months, at, served, now }))
    }

    fn leave(&mut self, entry: &Settled) {
        let user = self.users.get_mut(entry.user_id);
        if let Some(month) = user.and_then(|user| user.month(entry.period)) {
            month.settle(&entry.id_digest);
        }
    }

    fn served(&self, partition: Partition) -> Result<Served, Closed> {
        let number = usize::try_from(partition.number()).unwrap_or(usize::MAX);
        self.partitions.get(number).copied().flatten().ok_or(Closed(partition))
    }

    fn slot_of(&mut self, partition: Partition) -> Option<&mut Option<Served>> {
        let number = usize::try_from(partition.number()).unwrap_or(usize::MAX);
        self.partitions.get_mut(number)
    }

    fn partition_of(&self, user: UserId) -> Partition {
        partition_of(user, self.count)
    }
}

/// Hashes only when there is a choice.
fn partition_of(user: UserId, count: NonZeroU32) -> Partition {
    if count.get() == 1 { Partition::SINGLE } else { Partition::of(user, count) }
}
