//! Spans of time, cut at the edges of the days or hours that summaries have.

/// `[from, to)`, in milliseconds or in units of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Span {
    pub(super) fn length(self) -> i64 {
        self.to.saturating_sub(self.from).max(0)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// The whole units inside, and what is left before and after them.
    pub(super) fn cut(self, unit: i64) -> (Self, [Self; 2]) {
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
