use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::quota::{ModelCatalogue, OverLimit, PlanCatalogue, Tier};
use crate::usage::{
    AdmittedEvent, EventId, Flags, Horizon, IdOrigin, LogRecord, ModelName, Offset, Partition,
    Payload, SeenIds, TokenCounts, UsageEvent, fold,
};

const OCTOBER: i64 = 1_790_812_800_000;

fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

/// An event by its user, plan, tokens and days since October.
type Choice = (u8, &'static str, u32, i64);

fn record(offset: usize, (of, plan, prompt, days): Choice) -> LogRecord {
    let log_time = Timestamp::from_millis(OCTOBER);
    let event = UsageEvent {
        user_id: user(of),
        event_id: EventId::new(&offset.to_string()).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Plagiarism,
        model: ModelName::new("gpt-4"),
        tokens: TokenCounts { prompt, ..TokenCounts::default() },
        occurred_at: Timestamp::from_millis(OCTOBER + days * 86_400_000),
        occurred_at_given: true,
        received_at: log_time,
        reservation_id: None,
        metadata: None,
    };
    let admitted = AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        plan: PlanName::new(plan),
        admitted_at: log_time,
        flags: Flags::default(),
        over_hold: 0,
        event,
    };
    let payload = Payload::Event(Box::new(admitted));
    LogRecord { offset: Offset::new(offset as u64), log_time, payload }
}

fn log(choices: &[Choice]) -> Vec<LogRecord> {
    choices.iter().enumerate().map(|(offset, choice)| record(offset, *choice)).collect()
}

fn plans() -> PlanCatalogue {
    let text = r#"
        plan = [
          { name = "free", free = true, tokens = 1000, plagiarism_checks = 5, max_model_tier = "gpt-4" },
          { name = "small", tokens = 50, alert_at = [50, 200], max_model_tier = "gpt-4" },
          { name = "silent", tokens = 10, alert_at = [], max_model_tier = "gpt-4" },
          { name = "unlimited", max_model_tier = "gpt-4" },
        ]"#;
    let models = ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap();
    PlanCatalogue::from_toml(text, &models).unwrap()
}

/// What a ledger keeps that commits the log in batches of these lengths, again and again.
fn raised(records: &[LogRecord], cuts: &[usize]) -> BTreeMap<AlertId, Alert> {
    let rules = AlertRules::of(&plans());
    let (mut totals, mut alerts) = (HashMap::<_, Totals>::new(), BTreeMap::new());
    let (mut rest, mut cuts) = (records, cuts.iter().cycle());
    while !rest.is_empty() {
        let batch;
        (batch, rest) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
        let (horizon, seen) = (Horizon::Ever, SeenIds::new());
        let flush = fold(Partition::SINGLE, horizon, batch.to_vec(), &seen).unwrap();
        for (month, more) in &flush.statistics {
            let total = totals.entry(*month).or_default();
            *total = total.plus(*more).unwrap();
        }
        for watched in rules.watched(&flush) {
            let month = totals[&(watched.user_id, watched.period)];
            for alert in watched.reached(month, flush.log_time) {
                alerts.entry(alert.id()).or_insert(alert);
            }
        }
    }
    alerts
}

fn shown(choices: &[Choice], cut: usize) -> BTreeSet<String> {
    let alerts = raised(&log(choices), &[cut]).into_values().map(|alert| {
        let Alert { plan, meter, percent, used, .. } = alert;
        format!("{plan} {percent} {} {used}", meter.as_str())
    });
    alerts.collect()
}

#[test]
fn an_alert_is_raised_once_at_each_part_of_each_limit() {
    let used = [(1, "free", 799, 0), (1, "free", 1, 0), (1, "free", 149, 1), (1, "free", 51, 2)];
    let expected = [
        "free 80 plagiarism_checks 4",
        "free 80 tokens 800",
        "free 95 tokens 1000",
        "free 100 tokens 1000",
    ];
    assert_eq!(shown(&used, 1), expected.map(str::to_owned).into());
    assert_eq!(shown(&used[..1], 1), BTreeSet::new());
}

#[test]
fn of_parts_that_the_same_amount_reaches_the_highest_is_told() {
    let used = [(1, "free", 0, 0); 5];
    let expected = ["free 100 plagiarism_checks 5", "free 80 plagiarism_checks 4"];
    assert_eq!(shown(&used, 1), expected.map(str::to_owned).into());
}

#[test]
fn parts_above_a_limit_are_told_where_the_plan_asks_for_them() {
    let used = [(1, "small", 99, 0), (1, "small", 1, 0)];
    assert_eq!(
        shown(&used, 1),
        ["small 200 tokens 100", "small 50 tokens 99"].map(str::to_owned).into()
    );
}

#[test]
fn a_month_is_by_itself_and_so_is_a_user() {
    let used = [(1, "small", 20, 30), (1, "small", 20, 31), (2, "small", 20, 30)];
    assert_eq!(shown(&used, 3), BTreeSet::new());
}

#[test]
fn plans_that_ask_for_none_or_have_no_limit_raise_none() {
    let used = [(1, "silent", 1000, 0), (2, "unlimited", 1000, 0), (3, "gone", 1000, 0)];
    assert_eq!(shown(&used, 3), BTreeSet::new());
}

#[test]
fn a_smaller_plan_tells_what_the_larger_one_had_let_in() {
    let used = [(1, "unlimited", 500, 0), (1, "small", 0, 1)];
    for cut in [1, 2] {
        let expected = ["small 200 tokens 500", "small 50 tokens 500"];
        assert_eq!(shown(&used, cut), expected.map(str::to_owned).into());
    }
}

#[test]
fn what_comes_after_a_plan_has_ended_is_not_held_against_it() {
    let used = [(1, "small", 20, 0), (1, "unlimited", 500, 0)];
    for cut in [1, 2] {
        assert_eq!(shown(&used, cut), BTreeSet::new());
    }
}

#[test]
fn a_limit_of_nothing_is_reached_by_the_first() {
    let plan = Plan {
        name: PlanName::new("none"),
        token_limit: Some(0),
        request_limits: [None, None, Some(u64::MAX)],
        tier: Tier(0),
        over_limit: OverLimit::Record,
        free: false,
        alert_at: vec![80, 100, 1000],
    };
    let amounts = thresholds(&plan).into_iter().map(|one| (one.percent, one.amount));
    let of_most =
        [80, 100].map(|at| (at, u64::try_from(u128::from(u64::MAX) * u128::from(at) / 100)));
    let of_most = of_most.map(|(at, amount)| (at, amount.unwrap()));
    assert_eq!(amounts.collect::<Vec<_>>(), [&[(1000, 1)], &of_most[..]].concat());
}

#[test]
fn an_id_is_made_of_what_the_alert_is_about() {
    let alert = Alert {
        user_id: user(7),
        period: "2026-10".parse().unwrap(),
        plan: PlanName::new("free"),
        meter: Meter::Tokens,
        percent: 80,
        limit: 100_000,
        used: 80_001,
        raised_at: Timestamp::from_millis(OCTOBER),
    };
    // Fixed for ever: whoever was told would be told again under another one.
    assert_eq!(alert.id().to_string(), "alert_f67c8a08-fe00-82dd-b064-5bbba67e168d");
    assert_eq!(alert.id().to_string().parse(), Ok(alert.id()));
    assert!("00000000-0000-8000-8000-000000000000".parse::<AlertId>().is_err());
    let same = Alert { used: 99_999, limit: 7, raised_at: Timestamp::MIN, ..alert.clone() };
    assert_eq!(same.id(), alert.id());
    let meter = Meter::Requests(RequestType::Chat);
    let others = [
        Alert { user_id: user(8), ..alert.clone() },
        Alert { period: alert.period.next(), ..alert.clone() },
        Alert { plan: PlanName::new("basic"), ..alert.clone() },
        Alert { meter, ..alert.clone() },
        Alert { percent: 95, ..alert.clone() },
    ];
    let ids: BTreeSet<_> = others.iter().chain([&alert]).map(Alert::id).collect();
    assert_eq!(ids.len(), 6);
}

fn choice() -> impl Strategy<Value = Choice> {
    let plan = prop_oneof![Just("free"), Just("small"), Just("silent"), Just("unlimited")];
    (0..3_u8, plan, 0..40_u32, 25..35_i64)
}

proptest! {
    #[test]
    fn cutting_the_same_log_otherwise_raises_the_same_alerts(
        choices in prop::collection::vec(choice(), 1..60),
        cuts in prop::collection::vec(1..20_usize, 1..5),
    ) {
        let records = log(&choices);
        let one_by_one: Vec<_> = raised(&records, &[1]).into_keys().collect();
        prop_assert_eq!(raised(&records, &cuts).into_keys().collect::<Vec<_>>(), one_by_one);
    }
}
