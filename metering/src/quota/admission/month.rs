//! One user's month: the ledger's totals and the entries on their way to it.

use std::collections::HashMap;
use std::time::Duration;

use crate::quota::{ADMISSION_WINDOW, InFlight, MARGIN, Tier, Totals};
use crate::time::{Period, Timestamp};
use crate::usage::{ContentDigest, Flags, IdDigest, Offset, RequestType};

/// An entry this long before the watermark has no record to come.
const REACH: Duration = ADMISSION_WINDOW.saturating_add(MARGIN);

/// A map that once held more than this gives its memory back when it is empty.
const SPARE_ENTRIES_MAX: usize = 64;

/// An event on its way to the ledger, or a hold.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) tokens: u64,
    pub(super) request_type: RequestType,
    pub(super) content: ContentDigest,
    pub(super) admitted_at: Timestamp,
    pub(super) kind: EntryKind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum EntryKind {
    /// Leaves when the ledger has it, or when no record of it can come any more.
    Event { flags: Flags, over_hold: u64 },
    /// Leaves when it is settled, released or expired. Its tier was granted with it.
    Hold { expires_at: Timestamp, tier: Tier },
}

impl Entry {
    fn amount(&self) -> Totals {
        Totals::of(self.request_type, self.tokens)
    }
}

impl From<(&IdDigest, &Entry)> for InFlight {
    fn from((id_digest, entry): (&IdDigest, &Entry)) -> Self {
        let hold_expires_at = match entry.kind {
            EntryKind::Event { .. } => None,
            EntryKind::Hold { expires_at, .. } => Some(expires_at),
        };
        let (tokens, admitted_at) = (entry.tokens, entry.admitted_at);
        Self { id_digest: *id_digest, tokens, admitted_at, hold_expires_at }
    }
}

/// One user's totals and entries of one period. Sums run along, so that a decision does not
/// depend on how much is in flight.
#[derive(Clone, Debug)]
pub(super) struct Month {
    pub(super) period: Period,
    /// What the ledger holds.
    pub(super) ledger: Totals,
    /// The cursor that `ledger` stands at.
    pub(super) cursor: Offset,
    in_flight: Totals,
    /// Events and holds; their digests never meet.
    entries: HashMap<IdDigest, Entry>,
    /// No event in flight was admitted before.
    oldest: Timestamp,
    /// No hold ends before.
    first_expiry: Timestamp,
}

impl Month {
    pub(super) fn new(period: Period, ledger: Totals, cursor: Offset) -> Self {
        Self {
            period,
            ledger,
            cursor,
            in_flight: Totals::default(),
            entries: HashMap::new(),
            oldest: Timestamp::MAX,
            first_expiry: Timestamp::MAX,
        }
    }

    /// Ledger, in flight and held.
    pub(super) fn used(&self) -> Totals {
        let (counted, coming) = (self.ledger, self.in_flight);
        let mut sum = Totals { tokens: counted.tokens.saturating_add(coming.tokens), ..counted };
        for (mine, theirs) in sum.requests.iter_mut().zip(coming.requests) {
            *mine = mine.saturating_add(theirs);
        }
        sum
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&IdDigest, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn entry(&self, id: &IdDigest) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The entry, admitted anew if it is there.
    pub(super) fn refresh(&mut self, id: &IdDigest, admitted_at: Timestamp) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.admitted_at = entry.admitted_at.max(admitted_at);
        }
    }

    pub(super) fn insert(&mut self, id: IdDigest, entry: Entry) {
        // The caller saw that the sum fits.
        self.in_flight = self.in_flight.plus(entry.amount()).unwrap_or(self.in_flight);
        match entry.kind {
            EntryKind::Event { .. } => self.oldest = self.oldest.min(entry.admitted_at),
            EntryKind::Hold { expires_at, .. } => {
                self.first_expiry = self.first_expiry.min(expires_at);
            }
        }
        self.entries.insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: &IdDigest) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.in_flight = self.in_flight.minus(entry.amount()).unwrap_or_default();
        if self.entries.is_empty() {
            self.quieten();
        }
    }

    /// The ledger has this event.
    pub(super) fn settle(&mut self, id: &IdDigest) {
        if matches!(self.entry(id), Some(Entry { kind: EntryKind::Event { .. }, .. })) {
            self.remove(id);
        }
    }

    /// Ends a hold; `false` when none stands.
    pub(super) fn release(&mut self, id: &IdDigest, now: Timestamp) -> bool {
        let stands = matches!(self.entry(id),
            Some(Entry { kind: EntryKind::Hold { expires_at, .. }, .. }) if now < *expires_at);
        if stands {
            self.remove(id);
        }
        stands
    }

    /// Takes over the ledger's totals if they are newer.
    pub(super) fn take_over(&mut self, totals: Totals, cursor: Offset) {
        if cursor > self.cursor {
            self.ledger = totals;
            self.cursor = cursor;
        }
    }

    /// Lets go of events whose record cannot come any more and of holds that have ended. Looks
    /// for them only when the oldest is that old, so that the cost is shared by many admissions.
    pub(super) fn forget(&mut self, watermark: Timestamp, now: Timestamp) {
        let reach = watermark.minus(REACH);
        if self.oldest >= reach && now < self.first_expiry {
            return;
        }
        (self.oldest, self.first_expiry) = (Timestamp::MAX, Timestamp::MAX);
        let mut left = self.in_flight;
        self.entries.retain(|_, entry| {
            let stays = match entry.kind {
                EntryKind::Event { .. } => entry.admitted_at >= reach,
                EntryKind::Hold { expires_at, .. } => now < expires_at,
            };
            match entry.kind {
                _ if !stays => left = left.minus(entry.amount()).unwrap_or_default(),
                EntryKind::Event { .. } => self.oldest = self.oldest.min(entry.admitted_at),
                EntryKind::Hold { expires_at, .. } => {
                    self.first_expiry = self.first_expiry.min(expires_at);
                }
            }
            stays
        });
        self.in_flight = left;
        if self.entries.is_empty() {
            self.quieten();
        }
    }

    fn quieten(&mut self) {
        (self.oldest, self.first_expiry) = (Timestamp::MAX, Timestamp::MAX);
        if self.entries.capacity() > SPARE_ENTRIES_MAX {
            self.entries = HashMap::new();
        }
    }
}
