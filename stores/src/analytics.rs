//! What both ledgers do alike when they are asked for everybody's usage.
//!
//! Questions without users are answered from the hourly summary, others from the daily one. Whole
//! hours (days) inside the span come from the summary, the parts at its edges from the events.

use metering::time::{Period, Timestamp};
use metering::usage::{AnalyticsQuery, Dimension, Granularity, UsageTotals};

pub(crate) const HOUR_MILLIS: i64 = 3_600_000;
pub(crate) const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;

/// `[from, to)`, in milliseconds or in units of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Span {
    /// The span that is asked for, in milliseconds.
    pub(crate) fn of(query: &AnalyticsQuery) -> Self {
        Self { from: query.from.as_millis(), to: query.to.as_millis() }
    }

    /// As long, and ends where this one begins.
    pub(crate) fn before(self) -> Self {
        let length = self.to.saturating_sub(self.from).max(0);
        Self { from: self.from.saturating_sub(length), to: self.from }
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// The whole units inside, and what is left before and after them.
    pub(crate) fn cut(self, unit: i64) -> (Self, [Self; 2]) {
        let first = self.from.div_euclid(unit) + i64::from(self.from.rem_euclid(unit) != 0);
        let end = self.to.div_euclid(unit);
        if first >= end {
            let nothing = Self { from: self.to, to: self.to };
            return (Self { from: first, to: first }, [self, nothing]);
        }
        let before = Self { from: self.from, to: first * unit };
        let after = Self { from: end * unit, to: self.to };
        (Self { from: first, to: end }, [before, after])
    }
}

/// What sums are divided by. By nothing at all: one sum.
#[derive(Clone, Copy, Default)]
pub(crate) struct Grouping {
    pub(crate) request_type: bool,
    pub(crate) model: bool,
    pub(crate) plan: bool,
    pub(crate) user: bool,
    /// `None`: one bucket for the whole span.
    pub(crate) granularity: Option<Granularity>,
}

impl Grouping {
    /// Into the series that is asked for.
    pub(crate) fn of(query: &AnalyticsQuery) -> Self {
        let by = |dimension| query.group_by.contains(&dimension);
        Self {
            request_type: by(Dimension::RequestType),
            model: by(Dimension::Model),
            plan: by(Dimension::Plan),
            user: by(Dimension::User),
            granularity: Some(query.granularity),
        }
    }

    /// The bucket of an instant.
    pub(crate) fn bucket(&self, instant: i64) -> Timestamp {
        let instant = Timestamp::from_millis(instant);
        match self.granularity {
            None => Timestamp::MIN,
            Some(Granularity::Hour) => instant.hour().start(),
            Some(Granularity::Day) => instant.day().start(),
            Some(Granularity::Month) => Period::of(instant).start(),
        }
    }

    /// The stretch, in milliseconds, that SQL groups by: months are made of days afterwards. `None`:
    /// everything.
    pub(crate) const fn width(&self) -> Option<i64> {
        match self.granularity {
            None => None,
            Some(Granularity::Hour) => Some(HOUR_MILLIS),
            Some(Granularity::Day | Granularity::Month) => Some(DAY_MILLIS),
        }
    }
}

/// Both together; `None` when a sum is too large.
pub(crate) fn plus(one: UsageTotals, other: UsageTotals) -> Option<UsageTotals> {
    Some(UsageTotals {
        events: one.events.checked_add(other.events)?,
        prompt_tokens: one.prompt_tokens.checked_add(other.prompt_tokens)?,
        completion_tokens: one.completion_tokens.checked_add(other.completion_tokens)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: i64, to: i64) -> Span {
        Span { from, to }
    }

    #[test]
    fn a_span_is_whole_units_and_its_edges() {
        assert_eq!(span(0, 30).cut(10), (span(0, 3), [span(0, 0), span(30, 30)]));
        assert_eq!(span(-5, 25).cut(10), (span(0, 2), [span(-5, 0), span(20, 25)]));
        assert_eq!(span(3, 12).cut(10), (span(1, 1), [span(3, 12), span(12, 12)]));
    }
}
