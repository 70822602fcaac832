//! Orders of events that chance hardly ever finds. Each shows what a broken rule would do, and that
//! the protocol survives the same order.

use std::time::Duration;

use super::actions::{Action, LedgerStep, OwnerStep};
use super::environment::Environment;
use super::rules::Variant;
use super::setup::{Rules, Setup};
use super::stores::Written;

/// What happens, and without which rules it goes wrong.
pub(crate) struct Script {
    pub(crate) variant: Variant,
    tokens: &'static [u32],
    pub(crate) actions: Vec<Action>,
}

impl Script {
    pub(crate) fn setup(&self, rules: &Rules) -> Setup {
        let environment = self.variant.rules.environment.unwrap();
        Setup::scripted(environment, self.tokens, rules)
    }
}

pub(crate) fn scripts() -> Vec<Script> {
    vec![
        log_time_steps_back_beyond_the_margin(),
        a_seed_of_the_old_epoch_arrives_in_the_new_one(),
        a_rebuild_without_a_wait(),
        the_end_is_read_before_the_wait(),
        a_short_wait_forgets_the_feed(),
        the_new_name_is_announced_too_late(),
        an_ingest_that_was_paused(&["the_feed_is_asked"]),
        an_ingest_that_was_paused(&["the_feed_is_fresh"]),
        a_stale_sync_reaches_another_epoch(),
        a_stalled_rebuild_opens_over_a_later_one(),
        an_old_name_arrives_when_the_deposed_server_serves(),
        the_horizon_changes_at_a_commit(),
        a_horizon_grows_beyond_what_was_loaded(),
        a_stamp_somewhat_ahead(),
    ]
}

const MINUTE: Duration = Duration::from_secs(60);

fn log_time_steps_back_beyond_the_margin() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.is_let_in(0, 0, 0);
    order.pass(&[11, 4, 4]);
    let horizon = Environment::Quiet.shape_under(&Rules::default()).horizons[0];
    order.own(0, &[OwnerStep::Tick(horizon)]);
    order.commits(0, 1);
    order.own(0, &[OwnerStep::Sync]);
    // The first one is forgotten, though its record is still to come.
    order.is_let_in(1, 0, 1);
    order.append(1);
    order.0.push(Action::SetLogTime(Duration::from_secs(13)));
    order.append(0);
    order.script(&["log_time_keeps_its_margin"], Environment::Quiet, &[3, 3])
}

fn a_seed_of_the_old_epoch_arrives_in_the_new_one() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.0.push(Action::Send { event: 0, content: 0, ingest: 0 });
    order.0.push(Action::Admit { request: 0, is_answered: true });
    order.is_let_in(1, 0, 1);
    order.own(0, &[OwnerStep::Close]);
    order.0.push(Action::ReadTotals(0));
    order.own(0, &[OwnerStep::Announce]);
    order.append(1);
    order.commits(0, 1);
    order.pass(&[9, 9]);
    order.own(0, &[OwnerStep::ReadEnd, OwnerStep::Open]);
    order.0.extend([Action::Seed(0), Action::Admit { request: 0, is_answered: true }]);
    order.0.push(Action::Publish(0));
    order.append(0);
    let broken = &["seeds_carry_the_nonce_of_the_miss", "old_seeds_are_dropped"];
    order.script(broken, Environment::Rebuilds, &[2, 2])
}

fn a_rebuild_without_a_wait() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.is_let_in(0, 0, 0);
    order.own(0, &[OwnerStep::Close, OwnerStep::Announce, OwnerStep::ReadEnd, OwnerStep::Open]);
    order.is_let_in(1, 0, 1);
    order.append(1);
    order.append(0);
    order.script(&["rebuilds_wait"], Environment::Rebuilds, &[2, 2])
}

fn the_end_is_read_before_the_wait() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.is_let_in(0, 0, 0);
    order.own(0, &[OwnerStep::Close, OwnerStep::Announce, OwnerStep::ReadEnd]);
    order.append(0);
    order.pass(&[9, 9]);
    order.own(0, &[OwnerStep::ReadEnd, OwnerStep::Open]);
    order.is_let_in(1, 0, 1);
    order.append(1);
    order.script(&["the_end_is_read_after_the_wait"], Environment::Rebuilds, &[2, 2])
}

fn a_short_wait_forgets_the_feed() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.deposes(0);
    order.own(0, &[OwnerStep::Close, OwnerStep::Announce]);
    order.pass(&[7]);
    // By the deposed server; the feed was read as early as it may be.
    order.is_let_in(0, 0, 0);
    order.pass(&[4]);
    order.own(0, &[OwnerStep::ReadEnd, OwnerStep::Open]);
    order.0.push(Action::Connect(1));
    order.is_let_in(1, 1, 1);
    order.append(1);
    order.append(0);
    order.script(&["rebuilds_wait_for_the_feed"], Environment::Servers, &[2, 2])
}

fn the_new_name_is_announced_too_late() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.deposes(0);
    order.own(0, &[OwnerStep::Close]);
    order.pass(&[7, 7, 7]);
    order.own(0, &[OwnerStep::ReadEnd]);
    order.0.push(Action::Look(0));
    order.is_let_in(0, 0, 0);
    order.own(0, &[OwnerStep::Announce, OwnerStep::Open]);
    order.0.push(Action::Connect(1));
    order.is_let_in(1, 1, 1);
    order.append(1);
    order.append(0);
    order.script(&["announced_before_the_wait"], Environment::Servers, &[2, 2])
}

fn an_ingest_that_was_paused(broken: &'static [&'static str]) -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.deposes(0);
    order.own(0, &[OwnerStep::Close, OwnerStep::Announce]);
    order.pass(&[7, 7, 7]);
    order.own(0, &[OwnerStep::ReadEnd, OwnerStep::Open]);
    order.0.extend([Action::Connect(1), Action::Look(1)]);
    order.is_let_in(0, 1, 0);
    order.append(0);
    order.is_let_in(1, 0, 1);
    order.append(1);
    order.script(broken, Environment::Servers, &[2, 2])
}

fn a_stale_sync_reaches_another_epoch() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.is_let_in(0, 0, 0);
    order.is_let_in(1, 0, 1);
    order.append(0);
    order.commits(0, 1);
    // Its sync is not sent yet. Another one takes over, counts on and opens the counter anew.
    order.takes(1);
    order.append(1);
    order.commits(1, 1);
    order.own(1, &[OwnerStep::Sync, OwnerStep::Sync]);
    order.own(1, &[OwnerStep::Close, OwnerStep::Announce]);
    order.pass(&[9, 9]);
    order.own(1, &[OwnerStep::ReadEnd, OwnerStep::Open]);
    order.own(0, &[OwnerStep::Sync]);
    order.is_let_in(2, 0, 2);
    order.append(2);
    let broken = &["sync_never_creates", "sync_names_the_epoch"];
    order.script(broken, Environment::Owners, &[2, 1, 1])
}

fn a_stalled_rebuild_opens_over_a_later_one() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.takes(1);
    for at in [0, 1] {
        order.own(at, &[OwnerStep::Close, OwnerStep::Announce]);
        order.pass(&[9, 9]);
        order.own(at, &[OwnerStep::ReadEnd]);
    }
    order.own(1, &[OwnerStep::Open]);
    order.is_let_in(0, 0, 0);
    order.own(0, &[OwnerStep::Open]);
    order.is_let_in(1, 0, 1);
    order.append(0);
    order.append(1);
    let broken = &["opened_by_compare_and_set", "the_feed_is_asked_for_the_nonce"];
    order.script(broken, Environment::Owners, &[2, 2])
}

fn an_old_name_arrives_when_the_deposed_server_serves() -> Script {
    let mut order = Order::default();
    (0..3).for_each(|at| order.takes(at));
    order.0.extend([Action::Replace(0), Action::Connect(1)]);
    for at in [0, 1] {
        order.0.push(Action::ConnectAggregator(at));
        order.own(at, &[OwnerStep::Idle, OwnerStep::Sync, OwnerStep::Close]);
    }
    // The second opens the new server; then the third, who has not heard of it, the deposed one.
    for at in [1, 2] {
        order.own(at, &[OwnerStep::Close, OwnerStep::Announce]);
        order.pass(&[11, 11]);
        order.own(at, &[OwnerStep::ReadEnd, OwnerStep::Open]);
        order.0.push(Action::LookAggregator(2));
        order.own(2, &[OwnerStep::Idle, OwnerStep::Sync]);
    }
    order.is_let_in(0, 0, 0);
    // Only now the first one names the epoch that it had closed the new server with.
    order.own(0, &[OwnerStep::Announce]);
    order.is_let_in(1, 1, 1);
    order.append(0);
    order.append(1);
    let broken = &["the_feed_is_asked_for_the_nonce"];
    order.script(broken, Environment::ServersAndOwners, &[3, 3])
}

fn the_horizon_changes_at_a_commit() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.is_let_in(0, 0, 0);
    order.append(0);
    order.commits(0, 1);
    order.own(0, &[OwnerStep::Sync, OwnerStep::Sync]);
    order.takes(1);
    order.own(0, &[OwnerStep::Tick(4 * MINUTE)]);
    order.pass(&[150, 150]);
    order.is_let_in(1, 0, 0);
    order.append(1);
    // The first one stores what it counts and dies; the other one counts the same records.
    order.own(0, &[OwnerStep::Fold(2), OwnerStep::Fold(1)]);
    order.ledger(0, &[LedgerStep::Begin, LedgerStep::Insert(Written::Confirmed)]);
    order.0.push(Action::Crash(0));
    order.own(1, &[OwnerStep::Fold(2)]);
    order.commits(1, 1);
    order.script(&["the_horizon_is_in_the_log"], Environment::Horizons, &[1])
}

fn a_horizon_grows_beyond_what_was_loaded() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.is_let_in(0, 0, 0);
    order.append(0);
    order.pass(&[150, 150]);
    order.commits(0, 1);
    order.own(0, &[OwnerStep::Sync, OwnerStep::Sync, OwnerStep::Tick(4 * MINUTE)]);
    order.commits(0, 1);
    order.own(0, &[OwnerStep::Sync]);
    order.takes(1);
    order.own(1, &[OwnerStep::Tick(10 * MINUTE)]);
    order.is_let_in(1, 0, 0);
    order.append(1);
    order.commits(1, 2);
    order.script(&["a_growing_horizon_reads_again"], Environment::Horizons, &[1])
}

fn a_stamp_somewhat_ahead() -> Script {
    let mut order = Order::default();
    order.takes(0);
    order.is_let_in(0, 0, 0);
    order.append(0);
    order.commits(0, 1);
    order.own(0, &[OwnerStep::Sync, OwnerStep::Sync]);
    // Longer than the horizon after it was counted, but not after the time that it says.
    order.pass(&[420, 150, 150]);
    order.own(0, &[OwnerStep::Tick(10 * MINUTE)]);
    order.commits(0, 1);
    order.own(0, &[OwnerStep::Sync, OwnerStep::Evict]);
    order.is_let_in(1, 0, 0);
    order.append(1);
    order.commits(0, 1);
    order.script(&["stamps_have_an_allowance"], Environment::Duplicates, &[1])
}

#[derive(Default)]
struct Order(Vec<Action>);

impl Order {
    fn script(
        self,
        broken: &'static [&'static str],
        environment: Environment,
        tokens: &'static [u32],
    ) -> Script {
        Script { variant: Variant::new(broken, environment), tokens, actions: self.0 }
    }

    fn own(&mut self, at: usize, steps: &[OwnerStep]) {
        let partition = 0;
        self.0.extend(steps.iter().map(|step| Action::Owner { at, partition, step: *step }));
    }

    fn ledger(&mut self, at: usize, steps: &[LedgerStep]) {
        self.0.extend(steps.iter().map(|step| Action::Ledger { at, step: *step }));
    }

    fn pass(&mut self, seconds: &[u64]) {
        self.0.extend(seconds.iter().map(|span| Action::Pass(Duration::from_secs(*span))));
    }

    /// An aggregator takes the partition over and serves on.
    fn takes(&mut self, at: usize) {
        let load = OwnerStep::Load { everything: false };
        self.own(at, &[OwnerStep::Assign, OwnerStep::TakeOver, load, OwnerStep::Adopt]);
        self.own(at, &[OwnerStep::AskFeed, OwnerStep::ReadBetween, OwnerStep::ReadBetweenTotals]);
        self.own(at, &[OwnerStep::Sync, OwnerStep::Sync]);
    }

    /// Another server becomes the master; an aggregator finds nothing there.
    fn deposes(&mut self, at: usize) {
        self.0.extend([Action::Replace(0), Action::ConnectAggregator(at)]);
        self.own(at, &[OwnerStep::Idle, OwnerStep::Sync]);
    }

    /// It counts so many records.
    fn commits(&mut self, at: usize, count: usize) {
        self.own(at, &[OwnerStep::Fold(count)]);
        let insert = LedgerStep::Insert(Written::Confirmed);
        let commit = LedgerStep::Commit(Written::Confirmed);
        self.ledger(at, &[LedgerStep::Begin, insert, insert, commit]);
    }

    /// An event is sent to an ingest and handed to the log.
    fn is_let_in(&mut self, request: u32, ingest: usize, event: usize) {
        let admit = Action::Admit { request, is_answered: true };
        self.0.push(Action::Send { event, content: 0, ingest });
        self.0.extend([admit.clone(), Action::ReadTotals(request), Action::Seed(request)]);
        self.0.extend([admit, Action::Publish(request)]);
    }

    fn append(&mut self, request: u32) {
        self.0.push(Action::Append { request, is_reported: true });
    }
}
