//! The events of one request on their way to a verdict: which epoch has decided them, and which no
//! counter can decide.

use std::collections::BTreeMap;

use metering::Unavailable;
use metering::quota::{Admission, Verdict};
use metering::usage::Partition;

use super::coalescer::Answer;
use super::feed::Voucher;
use super::wire::Told;

/// The events of one request on their way through the counter, by their place in it.
pub(super) struct Admitting<'a> {
    pub(super) asked: &'a [Admission],
    pub(super) decided: Vec<Option<Decided>>,
    /// Which still have no verdict.
    pub(super) waiting: Vec<usize>,
    /// Which the counter cannot decide, and why the last of them.
    pub(super) without_counter: Vec<usize>,
    pub(super) away: Option<Unavailable>,
}

pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) under: EpochName,
}

impl Decided {
    /// `None`: nothing is decided yet.
    pub(super) fn of(Answer { told, partition, nonce }: Answer) -> Option<Self> {
        let Told::Answer(verdict) = told else { return None };
        Some(Self { verdict, under: (partition, nonce) })
    }
}

/// Partition and nonce.
pub(super) type EpochName = (Partition, u64);

impl<'a> Admitting<'a> {
    pub(super) fn of(asked: &'a [Admission]) -> Self {
        Self {
            asked,
            decided: asked.iter().map(|_| None).collect(),
            waiting: (0..asked.len()).collect(),
            without_counter: Vec::new(),
            away: None,
        }
    }

    /// One for each epoch that decided something.
    pub(super) fn vouchers(&self) -> BTreeMap<EpochName, Voucher> {
        let mut vouchers = BTreeMap::new();
        for Decided { verdict, under: (partition, nonce) } in self.decided.iter().flatten() {
            let admitted_at = match verdict {
                Verdict::Granted(grant) | Verdict::Repeated(grant) => Some(grant.admitted_at),
                Verdict::Conflict(_) | Verdict::Refused(..) | Verdict::UnknownUser => None,
            };
            let (partition, nonce) = (*partition, *nonce);
            let first = Voucher { partition, nonce, admitted_at };
            let voucher = vouchers.entry((partition, nonce)).or_insert(first);
            voucher.admitted_at = voucher.admitted_at.max(admitted_at);
        }
        vouchers
    }

    /// What this epoch decided does not count.
    pub(super) fn withdraw(&mut self, epoch: EpochName, reason: Unavailable) {
        for (place, decided) in self.decided.iter_mut().enumerate() {
            if decided.take_if(|decided| decided.under == epoch).is_some() {
                self.without_counter.push(place);
            }
        }
        self.away = Some(reason);
    }

    pub(super) fn asked_without_counter(&self) -> Vec<&'a Admission> {
        self.without_counter.iter().filter_map(|place| self.asked.get(*place)).collect()
    }

    /// All verdicts in the order asked, with those that were decided without a counter.
    pub(super) fn verdicts(self, without_counter: Vec<Verdict>) -> Vec<Verdict> {
        let mut verdicts: Vec<_> =
            self.decided.into_iter().map(|decided| decided.map(|one| one.verdict)).collect();
        for (place, verdict) in self.without_counter.into_iter().zip(without_counter) {
            verdicts[place] = Some(verdict);
        }
        verdicts.into_iter().flatten().collect()
    }
}
