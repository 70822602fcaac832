//! The seeds that a rule writes itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{QuotaSeeds, Terms, Totals};
use metering::time::Period;
use metering::usage::{Offset, TotalsAt};
use tokio::sync::oneshot;

use super::{october, user};

/// What the counter reads: terms and totals as the rule puts them, and what was read.
#[derive(Default)]
pub(crate) struct ScriptedSeeds {
    state: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    terms: HashMap<UserId, Terms>,
    totals: HashMap<(UserId, Period), Totals>,
    cursor: Offset,
    /// Instead of the true answer, once each.
    next_totals: VecDeque<Vec<TotalsAt>>,
    /// The next read of terms (or totals) has its answer, but brings it only when told.
    slow_terms: Option<oneshot::Receiver<()>>,
    slow_totals: Option<oneshot::Receiver<()>>,
    broken: bool,
    terms_reads: Vec<usize>,
    totals_reads: Vec<usize>,
}

impl ScriptedSeeds {
    pub(crate) fn put(&self, user: UserId, terms: Terms) {
        self.state.lock().unwrap().terms.insert(user, terms);
    }

    pub(crate) fn remove(&self, user: UserId) {
        self.state.lock().unwrap().terms.remove(&user);
    }

    /// The first user's totals in October, and the cursor of the whole ledger.
    pub(crate) fn count(&self, totals: Totals, cursor: u64) {
        self.count_for(user(1), october(), totals, cursor);
    }

    #[allow(dead_code, reason = "for the tests of one adapter beside these rules")]
    /// Anybody's totals in any month, and the cursor of the whole ledger.
    pub(crate) fn count_for(&self, user: UserId, period: Period, totals: Totals, cursor: u64) {
        let mut state = self.state.lock().unwrap();
        state.totals.insert((user, period), totals);
        state.cursor = Offset::new(cursor);
    }

    /// The next read of totals answers this instead.
    pub(crate) fn answer_once(&self, totals: Totals, cursor: u64) {
        let answer = TotalsAt { totals, cursor: Offset::new(cursor) };
        self.state.lock().unwrap().next_totals.push_back(vec![answer]);
    }

    pub(crate) fn slow_terms(&self) -> oneshot::Sender<()> {
        let (go_on, told) = oneshot::channel();
        self.state.lock().unwrap().slow_terms = Some(told);
        go_on
    }

    pub(crate) fn slow_totals(&self) -> oneshot::Sender<()> {
        let (go_on, told) = oneshot::channel();
        self.state.lock().unwrap().slow_totals = Some(told);
        go_on
    }

    pub(crate) fn set_broken(&self, broken: bool) {
        self.state.lock().unwrap().broken = broken;
    }

    /// How many users each read of terms asked for.
    pub(crate) fn terms_reads(&self) -> Vec<usize> {
        self.state.lock().unwrap().terms_reads.clone()
    }

    /// How many users each read of totals asked for.
    pub(crate) fn totals_reads(&self) -> Vec<usize> {
        self.state.lock().unwrap().totals_reads.clone()
    }
}

#[async_trait]
impl QuotaSeeds for ScriptedSeeds {
    async fn terms(&self, users: &[UserId]) -> Result<Vec<Option<Terms>>, Unavailable> {
        let (answer, slow) = {
            let mut state = self.state.lock().unwrap();
            if state.broken {
                return Err(Unavailable::new("accounts", "scripted"));
            }
            state.terms_reads.push(users.len());
            let answer = users.iter().map(|user| state.terms.get(user).cloned()).collect();
            (answer, state.slow_terms.take())
        };
        if let Some(told) = slow {
            told.await.unwrap();
        }
        Ok(answer)
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        let (answer, slow) = {
            let mut state = self.state.lock().unwrap();
            if state.broken {
                return Err(Unavailable::new("ledger", "scripted"));
            }
            state.totals_reads.push(users.len());
            let cursor = state.cursor;
            let totals = |key| state.totals.get(key).copied().unwrap_or_default();
            let at = |key| TotalsAt { totals: totals(key), cursor };
            let truth = users.iter().map(at).collect();
            (state.next_totals.pop_front().unwrap_or(truth), state.slow_totals.take())
        };
        if let Some(told) = slow {
            told.await.unwrap();
        }
        Ok(answer)
    }
}
