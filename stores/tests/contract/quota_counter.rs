//! The rules of the port `QuotaCounter`.

use std::sync::Arc;
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::{
    Admission, Hold, HoldOutcome, OverLimit, PlanName, QuotaCounter, Refused, Standing, Synced,
    Terms, Tier, Totals, Trust, UserTotals, Verdict,
};
use metering::time::{Period, Timestamp};
use metering::usage::{
    ContentDigest, EventId, IdDigest, ModelName, Offset, Partition, RequestType, ReservationId,
    Settled, TokenCounts,
};

pub(crate) mod admission;
pub(crate) mod holds;
pub(crate) mod ledger;
pub(crate) mod passing_time;
mod scripted_seeds;
pub(crate) mod settling;

pub(crate) use scripted_seeds::ScriptedSeeds;

/// Runs every rule that needs no time to pass; `$make` answers a [`Fixture`].
macro_rules! quota_counter_contract {
    ($make:expr) => {
        quota_counter_rules!(
            admission,
            $make,
            [
                nothing_is_answered_before_it_is_open,
                what_fits_is_granted_and_stands_in_the_answer,
                a_plan_can_be_used_up_exactly,
                what_does_not_fit_takes_nothing,
                the_same_event_again_takes_nothing,
                another_event_of_an_id_in_flight_is_a_conflict,
                an_id_in_flight_in_another_month_is_seen_there,
                what_is_in_flight_in_another_month_is_not_refused,
                other_terms_hold_after_many_events_alike,
                another_month_is_seen_after_many_events_alike,
                refusals_have_an_order,
                each_request_type_has_its_own_limit,
                a_barred_event_is_only_compared,
                users_and_months_do_not_share_limits,
                a_batch_is_let_in_in_order,
                what_is_known_is_decided_at_once,
                concurrent_admissions_stop_at_the_limit,
                an_unlimited_plan_has_no_limits,
                a_plan_that_records_past_its_limit_flags_it,
                an_absurd_sum_is_refused,
            ]
        );
        quota_counter_rules!(
            ledger,
            $make,
            [
                users_are_read_many_at_a_time_and_once,
                totals_of_the_ledger_count,
                who_does_not_exist_is_asked_for_again,
                new_terms_are_in_force_at_once,
                older_terms_change_nothing,
                a_slow_read_does_not_bring_back_older_terms,
                who_is_no_more_stays_so_after_a_slow_read,
                seeds_that_fail_are_unavailable_and_take_nothing,
                a_sync_replaces_what_was_in_flight,
                events_let_in_together_leave_one_by_one,
                an_event_and_its_duplicate_leave_once,
                repeating_a_sync_changes_nothing,
                an_older_sync_changes_no_totals,
                a_sync_makes_nobody_known,
                totals_older_than_the_cursor_are_read_again,
                totals_that_stay_too_old_are_unavailable,
                a_snapshot_beyond_the_cursor_is_not_set_back,
                a_withdrawn_entry_gives_back_its_room,
                a_withdrawal_of_what_is_gone_is_passed_over,
                a_grant_names_the_cursor_it_was_given_at,
                opening_forgets_everything,
                the_audit_shows_ledger_and_entries,
            ]
        );
        quota_counter_rules!(
            holds,
            $make,
            [
                a_hold_takes_tokens_and_a_request,
                the_same_hold_again_is_the_first_one,
                another_hold_of_a_standing_id_is_a_conflict,
                a_hold_must_fit,
                a_released_hold_gives_back_its_room_once,
                a_hold_of_last_month_is_found_again,
                holds_and_events_have_their_own_names,
                a_plan_that_records_past_its_limit_holds_past_it,
                nobody_holds_for_who_does_not_exist,
                a_sync_leaves_holds_alone,
            ]
        );
        quota_counter_rules!(
            settling,
            $make,
            [
                up_to_the_hold_an_event_always_fits,
                what_was_not_used_of_a_hold_is_free,
                a_hold_ends_once,
                the_event_is_looked_for_before_the_hold,
                a_service_is_let_in_above_its_hold,
                a_user_above_its_hold_must_fit,
                a_refused_settle_leaves_the_hold,
                a_barred_settle_leaves_the_hold,
                a_hold_of_the_month_before_is_ended_but_makes_no_room,
                a_hold_of_the_month_after_is_found_too,
                a_service_settles_across_months_whatever_the_limit,
                a_hold_of_another_request_type_helps_nothing,
                an_invented_or_foreign_hold_helps_nothing,
                a_hold_promises_its_tier,
                above_a_hold_a_recording_plan_flags_the_limit,
            ]
        );
    };
}

/// Runs the rules for which the fixture must be able to let time pass at will.
macro_rules! quota_counter_time_contract {
    ($make:expr) => {
        quota_counter_rules!(
            passing_time,
            $make,
            [
                an_entry_without_a_record_is_forgotten_in_the_end,
                an_event_beside_a_hold_is_forgotten_too,
                an_entry_is_not_forgotten_within_its_margin,
                an_entry_is_not_forgotten_by_the_clock_alone,
                a_repeat_makes_an_entry_young_again,
                a_forgotten_event_is_no_conflict,
                a_hold_ends_by_itself,
                an_expired_hold_is_no_hold,
                terms_past_their_end_are_read_again,
                an_admission_is_never_before_the_watermark,
            ]
        );
    };
}

macro_rules! quota_counter_rules {
    ($module:ident, $make:expr, [$($rule:ident),+ $(,)?]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let fixture = $make;
                    crate::contract::quota_counter::$module::$rule(&fixture).await;
                }
            )+
        }
    };
}

/// A counter that nobody has opened, over seeds that the rule writes.
pub(crate) struct Fixture {
    pub(crate) counter: Arc<dyn QuotaCounter>,
    pub(crate) seeds: Arc<ScriptedSeeds>,
    /// What the counter's clock shows.
    pub(crate) now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Moves the counter's clock on. Only the rules of `passing_time` use it.
    pub(crate) pass: Box<dyn Fn(Duration) + Send + Sync>,
}

impl Fixture {
    /// Opened at cursor 0, with the first [`user`] on `terms`.
    pub(crate) async fn serving(&self, terms: Terms) -> &dyn QuotaCounter {
        self.seeds.put(user(1), terms);
        self.open_at(0).await;
        self.counter.as_ref()
    }

    /// Closed and opened at `cursor`, as if its log were counted up to there.
    pub(crate) async fn open_at(&self, cursor: u64) {
        self.counter.close(Partition::SINGLE).await.unwrap();
        let opened =
            self.counter.open(Partition::SINGLE, Offset::new(cursor), (self.now)()).await.unwrap();
        assert!(opened, "nobody else has closed it");
    }

    /// How many tokens the first user has used in [`october`].
    pub(crate) async fn used(&self) -> u64 {
        self.standing().await.used.tokens
    }

    /// Where the first user stands in [`october`].
    pub(crate) async fn standing(&self) -> Standing {
        self.counter.usage(user(1), october()).await.unwrap().unwrap()
    }
}

pub(crate) fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(crate) fn october() -> Period {
    "2026-10".parse().unwrap()
}

/// A plan of `tokens` and 100 requests of each type that reaches tier 1.
pub(crate) fn limit(tokens: u64) -> Terms {
    Terms {
        version: 1,
        plan: PlanName::new("tested"),
        token_limit: Some(tokens),
        request_limits: [Some(100); 3],
        tier: Tier(1),
        over_limit: OverLimit::Reject,
        valid_until: None,
    }
}

/// A plan of `tokens` and any number of requests.
pub(crate) fn tokens_only(tokens: u64) -> Terms {
    Terms { request_limits: [None; 3], ..limit(tokens) }
}

pub(crate) fn event_id(name: &str) -> IdDigest {
    IdDigest::of_event(user(1), &EventId::new(name).unwrap())
}

pub(crate) fn hold_id(name: &str) -> IdDigest {
    IdDigest::of_hold(user(1), &ReservationId::new(name).unwrap())
}

/// A chat event of the first user, in October.
pub(crate) fn event(name: &str, tokens: u32) -> Admission {
    let counts = TokenCounts { prompt: tokens, ..TokenCounts::default() };
    let model = ModelName::new("gpt-4");
    Admission {
        user_id: user(1),
        period: october(),
        id_digest: event_id(name),
        content_digest: ContentDigest::of_event(RequestType::Chat, &model, counts),
        request_type: RequestType::Chat,
        tokens: tokens.into(),
        tier: Tier(0),
        trust: Trust::User,
        settles: None,
        barred: false,
    }
}

/// The same, settling a hold.
pub(crate) fn settling(name: &str, tokens: u32, hold: &str) -> Admission {
    Admission { settles: Some(hold_id(hold)), ..event(name, tokens) }
}

/// A hold of the first user, in October, that lasts for ten minutes.
pub(crate) fn hold(fixture: &Fixture, name: &str, tokens: u64) -> Hold {
    let model = ModelName::new("gpt-4");
    Hold {
        user_id: user(1),
        period: october(),
        id_digest: hold_id(name),
        content_digest: ContentDigest::of_hold(RequestType::Chat, &model, tokens),
        request_type: RequestType::Chat,
        tokens,
        tier: Tier(0),
        expires_at: (fixture.now)().plus(Duration::from_secs(600)),
    }
}

pub(crate) async fn admit(counter: &dyn QuotaCounter, asked: Admission) -> Verdict {
    counter.admit(&[asked]).await.unwrap().remove(0)
}

pub(crate) fn granted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Granted(_))
}

pub(crate) fn repeated(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Repeated(_))
}

pub(crate) fn refused(verdict: &Verdict) -> Option<Refused> {
    match verdict {
        Verdict::Refused(refused, _) => Some(*refused),
        Verdict::Granted(_)
        | Verdict::Repeated(_)
        | Verdict::Conflict(_)
        | Verdict::UnknownUser => None,
    }
}

pub(crate) fn held(outcome: &HoldOutcome) -> bool {
    matches!(outcome, HoldOutcome::Held(_))
}

pub(crate) fn chats(tokens: u64, count: u64) -> Totals {
    Totals { tokens, requests: [count, 0, 0] }
}

/// A sync that brings the first user's totals in October and takes out `names`.
pub(crate) fn synced(cursor: u64, totals: Totals, names: &[&str]) -> Synced {
    let (user_id, period) = (user(1), october());
    let settled = |name: &&str| Settled { user_id, period, id_digest: event_id(name) };
    Synced {
        partition: Partition::SINGLE,
        cursor: Offset::new(cursor),
        watermark: Timestamp::MIN,
        totals: vec![UserTotals { user_id, period, totals }],
        settled: names.iter().map(settled).collect(),
    }
}
