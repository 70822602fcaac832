//! The users in memory, and who leaves when there are too many.

use std::collections::HashMap;

use super::month::Month;
use crate::accounts::UserId;
use crate::quota::{Terms, Totals};
use crate::time::Period;
use crate::usage::Offset;

/// Periods kept per user beyond those with something in flight: a backfill touches many.
const QUIET_MONTHS_MAX: usize = 8;

/// What is known of a user's terms.
#[derive(Clone, Debug)]
pub(super) enum KnownTerms {
    /// Nothing yet.
    Unread,
    /// These, while they are valid.
    Terms(Terms),
    /// The user was deleted. Remembered, so that a slow read does not bring the terms back.
    UserGone,
}

/// One user.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) terms: KnownTerms,
    /// Few: found by looking through.
    pub(super) months: Vec<Month>,
    /// The round of eviction in which the user was last met.
    met_in: u32,
}

impl User {
    pub(super) fn month(&mut self, period: Period) -> Option<&mut Month> {
        self.months.iter_mut().find(|month| month.period == period)
    }

    /// Newer terms win. Terms of the same version replace each other: the expiry of a subscription
    /// makes other terms of it without a change. A user who is gone stays so.
    pub(super) fn learn(&mut self, new: KnownTerms) {
        match (&self.terms, &new) {
            (KnownTerms::UserGone, _) => {}
            (KnownTerms::Terms(old), KnownTerms::Terms(new)) if new.version < old.version => {}
            _ => self.terms = new,
        }
    }

    pub(super) fn add_month(&mut self, period: Period, ledger: Totals, cursor: Offset) {
        if self.month(period).is_some() {
            return;
        }
        if self.months.len() >= QUIET_MONTHS_MAX {
            self.months.retain(|month| !month.is_quiet());
        }
        self.months.push(Month::new(period, ledger, cursor));
    }

    fn is_quiet(&self) -> bool {
        self.months.iter().all(Month::is_quiet)
    }
}

/// All users, bounded: who has nothing in flight may leave, and is read again on return.
#[derive(Clone, Debug)]
pub(super) struct Users {
    all: HashMap<UserId, User>,
    users_max: usize,
    /// At this size there is a round of eviction.
    evict_at: usize,
    round: u32,
}

impl Users {
    pub(super) fn with_room_for(users_max: usize) -> Self {
        Self { all: HashMap::new(), users_max, evict_at: users_max, round: 0 }
    }

    pub(super) fn get_mut(&mut self, user: UserId) -> Option<&mut User> {
        let found = self.all.get_mut(&user)?;
        found.met_in = self.round;
        Some(found)
    }

    /// The user, from now on in memory.
    pub(super) fn meet(&mut self, user: UserId) -> &mut User {
        if self.all.len() >= self.evict_at && !self.all.contains_key(&user) {
            self.evict();
        }
        let round = self.round;
        let new = || User { terms: KnownTerms::Unread, months: Vec::new(), met_in: round };
        let found = self.all.entry(user).or_insert_with(new);
        found.met_in = round;
        found
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (UserId, &User)> {
        self.all.iter().map(|(id, user)| (*id, user))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn forget_if(&mut self, leaves: impl Fn(UserId) -> bool) {
        self.all.retain(|user, _| !leaves(*user));
    }

    /// Lets go of who was not met since the last round; when that makes too little room, of
    /// everybody without entries. Each round makes room for many users, so its cost is shared.
    fn evict(&mut self) {
        let round = self.round;
        self.all.retain(|_, user| !user.is_quiet() || user.met_in == round);
        if self.all.len() > self.users_max / 4 * 3 {
            self.all.retain(|_, user| !user.is_quiet());
        }
        self.round = self.round.wrapping_add(1);
        // What is in flight always stays; then the next round is due when it has doubled.
        self.evict_at = self.users_max.max(self.all.len().saturating_mul(2));
    }
}
