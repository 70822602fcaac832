//! The decisions: is an event let in, does a hold stand.

use super::month::{Entry, EntryKind, Month};
use super::{Miss, Served};
use crate::quota::{
    Admission, Grant, Held, Hold, HoldOutcome, OverLimit, Refused, Standing, Terms, Tier, Totals,
    Trust, Verdict,
};
use crate::time::{Period, Timestamp};
use crate::usage::{ContentDigest, Flag, Flags, IdDigest, RequestType};

/// A user whose terms are valid and whose month is known.
pub(super) struct Ready<'a> {
    pub(super) terms: &'a Terms,
    pub(super) months: &'a mut Vec<Month>,
    /// Which of `months` is asked about.
    pub(super) at: usize,
    pub(super) served: Served,
    /// The present: decides what has expired.
    pub(super) now: Timestamp,
}

/// A hold that an event may settle.
#[derive(Clone, Copy)]
struct Found {
    /// In which of the months.
    at: usize,
    tokens: u64,
    tier: Tier,
}

impl Ready<'_> {
    pub(super) fn admit(mut self, asked: &Admission) -> Result<Verdict, Miss> {
        if let Some(entry) = self.month().entry(&asked.id_digest) {
            return Ok(match entry.kind {
                EntryKind::Event { flags, over_hold } if entry.content == asked.content_digest => {
                    let admitted_at = self.admitted_at();
                    self.month_mut().refresh(&asked.id_digest, admitted_at);
                    Verdict::Repeated(self.grant(flags, over_hold))
                }
                EntryKind::Event { .. } | EntryKind::Hold { .. } => {
                    Verdict::Conflict(self.standing())
                }
            });
        }
        let elsewhere = self.in_flight_elsewhere(asked);
        if elsewhere.is_some_and(|content| content != asked.content_digest) {
            return Ok(Verdict::Conflict(self.standing()));
        }
        let hold = asked.settles.and_then(|id| self.hold_to_settle(&id, asked));
        let judged = if asked.barred { Err(Refused::Barred) } else { self.judge(asked, hold) };
        match judged {
            Ok((flags, over_hold)) => {
                if let (Some(hold), Some(id)) = (hold, &asked.settles) {
                    self.months[hold.at].remove(id);
                }
                Ok(self.take(asked, flags, over_hold))
            }
            Err(_) if elsewhere.is_some() => Err(Miss::Undecided),
            Err(refused) => Ok(Verdict::Refused(refused, self.standing())),
        }
    }

    pub(super) fn hold(mut self, asked: &Hold) -> HoldOutcome {
        let standing_hold = neighbours(asked.period).into_iter().find_map(|period| {
            let month = self.months.iter().find(|month| month.period == period)?;
            Some((month.entry(&asked.id_digest)?, month.period))
        });
        if let Some((first, period)) = standing_hold {
            let EntryKind::Hold { expires_at, .. } = first.kind else {
                return HoldOutcome::Conflict;
            };
            if first.content != asked.content_digest {
                return HoldOutcome::Conflict;
            }
            let tokens = first.tokens;
            self.at =
                self.months.iter().position(|month| month.period == period).unwrap_or(self.at);
            return HoldOutcome::Repeated(Held { tokens, expires_at, standing: self.standing() });
        }
        let reaches = self.terms.tier >= asked.tier;
        let request = Totals::of(asked.request_type, asked.tokens);
        let refused = match self.lacks(self.month().used(), request, asked.request_type) {
            _ if !reaches => Some(Refused::ModelNotInPlan),
            Some(Lack { countable: true, .. }) if self.records_past_limit() => None,
            lack => lack.map(|lack| lack.of),
        };
        if let Some(refused) = refused {
            return HoldOutcome::Refused(refused, self.standing());
        }
        let (tokens, expires_at) = (asked.tokens, asked.expires_at);
        let entry = Entry {
            tokens,
            request_type: asked.request_type,
            content: asked.content_digest,
            admitted_at: self.admitted_at(),
            kind: EntryKind::Hold { expires_at, tier: asked.tier },
        };
        self.month_mut().insert(asked.id_digest, entry);
        HoldOutcome::Held(Held { tokens, expires_at, standing: self.standing() })
    }

    fn take(&mut self, asked: &Admission, flags: Flags, over_hold: u64) -> Verdict {
        let entry = Entry {
            tokens: asked.tokens,
            request_type: asked.request_type,
            content: asked.content_digest,
            admitted_at: self.admitted_at(),
            kind: EntryKind::Event { flags, over_hold },
        };
        self.month_mut().insert(asked.id_digest, entry);
        Verdict::Granted(self.grant(flags, over_hold))
    }

    pub(super) fn standing(&self) -> Standing {
        self.terms.standing(self.month().used())
    }

    /// Flags and the amount above the hold, or why not.
    fn judge(&self, asked: &Admission, hold: Option<Found>) -> Result<(Flags, u64), Refused> {
        // What was held in this very period is free again for the event. From a neighbouring
        // period it cannot be: that room is another month's.
        let here = hold.filter(|hold| hold.at == self.at);
        let (mut used, mut free) = (self.month().used(), 0);
        if let Some(hold) = here {
            let held = Totals::of(asked.request_type, hold.tokens);
            (used, free) = (used.minus(held).unwrap_or(used), hold.tokens);
        }
        // A service reports what was consumed already: to refuse it would lose it.
        let forced = hold.is_some() && asked.trust == Trust::Service;
        let covered = here.is_some() && asked.tokens <= free;
        let promised = here.is_some_and(|hold| hold.tier >= asked.tier);
        if asked.tier > self.terms.tier && !forced && !promised {
            return Err(Refused::ModelNotInPlan);
        }
        let request = Totals::of(asked.request_type, asked.tokens);
        let lack = self.lacks(used, request, asked.request_type);
        let past_limit = forced || covered || self.records_past_limit();
        let mut flags = Flags::default();
        if let Some(lack) = lack {
            if !lack.countable || !past_limit {
                return Err(lack.of);
            }
            if self.records_past_limit() {
                flags = flags.with(Flag::OverLimit);
            }
        }
        let over_hold = if forced { asked.tokens.saturating_sub(free) } else { 0 };
        Ok((if over_hold > 0 { flags.with(Flag::OverHold) } else { flags }, over_hold))
    }

    /// What keeps `request` from fitting on top of `used`.
    fn lacks(&self, used: Totals, request: Totals, request_type: RequestType) -> Option<Lack> {
        let Some(sum) = used.plus(request) else {
            return Some(Lack { of: Refused::TokenLimit, countable: false });
        };
        let index = request_type.index();
        if self.terms.request_limits[index].is_some_and(|limit| sum.requests[index] > limit) {
            return Some(Lack { of: Refused::RequestLimit, countable: true });
        }
        let past = self.terms.token_limit.is_some_and(|limit| sum.tokens > limit);
        past.then_some(Lack { of: Refused::TokenLimit, countable: true })
    }

    fn records_past_limit(&self) -> bool {
        self.terms.over_limit == OverLimit::Record
    }

    /// The hold, if it stands in the event's period or a neighbouring one, for this request type.
    fn hold_to_settle(&self, id: &IdDigest, asked: &Admission) -> Option<Found> {
        neighbours(asked.period).into_iter().find_map(|period| {
            let at = self.months.iter().position(|month| month.period == period)?;
            let entry = self.months[at].entry(id)?;
            let EntryKind::Hold { expires_at, tier } = entry.kind else { return None };
            let usable = self.now < expires_at && entry.request_type == asked.request_type;
            usable.then_some(Found { at, tokens: entry.tokens, tier })
        })
    }

    /// The content of an event with this id that is in flight in another period: sent before the
    /// month's end, sent again after it without a time of its own. The *same* event there is no
    /// repeat, for its record would count in a month in which nothing was taken for it.
    fn in_flight_elsewhere(&self, asked: &Admission) -> Option<ContentDigest> {
        if self.months.len() == 1 {
            return None;
        }
        let entry = self.months.iter().find_map(|month| month.entry(&asked.id_digest))?;
        Some(entry.content)
    }

    fn grant(&self, flags: Flags, over_hold: u64) -> Grant {
        let (admitted_at, cursor) = (self.admitted_at(), self.served.cursor);
        Grant { admitted_at, cursor, flags, over_hold, standing: self.standing() }
    }

    /// The present, but never before the watermark: when the machine's clock is set back, the log
    /// goes on at the time it had reached, and records stamped earlier would lapse.
    fn admitted_at(&self) -> Timestamp {
        self.now.max(self.served.watermark)
    }

    fn month(&self) -> &Month {
        &self.months[self.at]
    }

    fn month_mut(&mut self) -> &mut Month {
        &mut self.months[self.at]
    }
}

/// Why something does not fit.
struct Lack {
    of: Refused,
    /// `false` when the sum does not even fit 64 bits.
    countable: bool,
}

/// The period itself first: a hold made just before midnight is settled just after.
fn neighbours(period: Period) -> [Period; 3] {
    [period, period.previous(), period.next()]
}
