//! The rules of the port `UsageReports` about analytics.

use std::collections::BTreeMap;

use metering::quota::PlanName;
use metering::time::Timestamp;
use metering::usage::{
    Analytics, AnalyticsQuery, Dimension, Granularity, ModelName, Payload, RequestType, UsageEvent,
    UsageReports, UsageTotals, UserTotal,
};

use super::counting::{Log, Subject, admitted, at, counted, event, tokens, user};

macro_rules! usage_analytics_contract {
    ($make:expr) => {
        rules!(
            usage_analytics,
            usage_analytics_rules,
            $make,
            [
                analytics_agree_with_the_events_for_any_question,
                buckets_of_months_follow_the_calendar,
                the_span_before_has_the_same_length,
                the_largest_users_come_first,
                a_filter_on_what_was_never_seen_finds_nothing,
            ]
        );
    };
}

/// Events of some users, models, types and plans over October and November.
fn many() -> Vec<(UsageEvent, &'static str)> {
    (0..300_u32)
        .map(|number| {
            let millis = i64::from(number) * 13_571_113 % (61 * 86_400_000);
            let mut event = event(user(u8::try_from(number % 7).unwrap()), &format!("{number}"));
            event.occurred_at =
                Timestamp::from_millis(at("2026-10-01T00:00:00Z").as_millis() + millis);
            event.model = ModelName::new(["gpt-4", "gpt-4o", "gpt-3.5-turbo"][number as usize % 3]);
            event.request_type = RequestType::ALL[number as usize / 3 % 3];
            (tokens(event, number, number * 2), ["free", "basic"][number as usize % 2])
        })
        .collect()
}

async fn count_many(subject: &impl Subject<Ledger: UsageReports>) {
    let mut log = Log::default();
    for (number, (event, plan)) in many().into_iter().enumerate() {
        log.append_payload(Payload::Event(Box::new(admitted(event, plan))));
        if number % 90 == 0 {
            log.count(&*subject.ledger()).await.unwrap();
        }
    }
    log.count(&*subject.ledger()).await.unwrap();
}

fn question(from: &str, to: &str, granularity: Granularity) -> AnalyticsQuery {
    AnalyticsQuery {
        from: at(from),
        to: at(to),
        granularity,
        group_by: vec![],
        model: None,
        plan: None,
        request_type: None,
        user_id: None,
        top: 0,
    }
}

fn matching(query: &AnalyticsQuery, (event, plan): &(UsageEvent, &str)) -> bool {
    (query.from..query.to).contains(&event.occurred_at)
        && query.model.as_ref().is_none_or(|model| *model == event.model)
        && query.request_type.is_none_or(|request_type| request_type == event.request_type)
        && query.user_id.is_none_or(|user| user == event.user_id)
        && query.plan.as_ref().is_none_or(|wanted| wanted.as_str() == *plan)
}

fn add(totals: &mut UsageTotals, event: &UsageEvent) {
    totals.events += 1;
    totals.prompt_tokens += u64::from(event.tokens.prompt);
    totals.completion_tokens += u64::from(event.tokens.completion);
}

/// The plain meaning of a question: over all events, one by one. Without `previous`.
fn expected(query: &AnalyticsQuery) -> Analytics {
    let by = |dimension| query.group_by.contains(&dimension);
    let (mut analytics, mut buckets) = (Analytics::default(), BTreeMap::new());
    let mut users = BTreeMap::<_, u64>::new();
    for entry in many().iter().filter(|entry| matching(query, entry)) {
        let (event, plan) = entry;
        let start = match query.granularity {
            Granularity::Hour => event.occurred_at.hour().start(),
            Granularity::Day => event.occurred_at.day().start(),
            Granularity::Month => event.period().start(),
        };
        let key = (
            start,
            by(Dimension::Model).then(|| event.model.clone()),
            by(Dimension::RequestType).then_some(event.request_type),
            by(Dimension::Plan).then(|| PlanName::new(plan)),
            by(Dimension::User).then_some(event.user_id),
        );
        add(buckets.entry(key).or_default(), event);
        add(&mut analytics.totals, event);
        *users.entry(event.user_id).or_default() += event.tokens.total();
    }
    let row = |((start, model, request_type, plan, user_id), totals)| metering::usage::SeriesRow {
        start,
        model,
        request_type,
        plan,
        user_id,
        totals,
    };
    analytics.series = buckets.into_iter().map(row).collect();
    let mut users: Vec<_> = users
        .into_iter()
        .map(|(user_id, total_tokens)| UserTotal { user_id, total_tokens })
        .collect();
    users.sort_by_key(|user| std::cmp::Reverse(user.total_tokens));
    users.truncate(query.top);
    analytics.top_users = users;
    analytics
}

/// Spans at the edges of hours, days and months, and beside them.
const SPANS: [(&str, &str); 7] = [
    ("2026-10-01T00:00:00Z", "2026-12-01T00:00:00Z"),
    ("2026-10-03T00:00:00Z", "2026-10-20T00:00:00Z"),
    ("2026-10-03T07:00:00Z", "2026-11-20T13:00:00Z"),
    ("2026-10-03T07:11:12.345Z", "2026-11-20T13:14:15.678Z"),
    ("2026-10-03T07:11:12.345Z", "2026-10-03T23:59:59.999Z"),
    ("2026-10-03T07:11:12.345Z", "2026-10-03T07:31:00Z"),
    ("2026-10-03T07:11:12.345Z", "2026-10-03T07:11:12.345Z"),
];

pub(crate) async fn analytics_agree_with_the_events_for_any_question(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    use Dimension::{Model, Plan, RequestType as Type, User};
    count_many(subject).await;
    let ledger = subject.ledger();
    let groups: [&[Dimension]; 8] = [
        &[],
        &[Model],
        &[Type],
        &[Plan],
        &[User],
        &[Model, User],
        &[Model, Type, Plan],
        &[Model, Type, Plan, User],
    ];
    for (from, to) in SPANS {
        for granularity in [Granularity::Hour, Granularity::Day, Granularity::Month] {
            for group_by in groups {
                if granularity == Granularity::Hour && group_by.contains(&User) {
                    continue;
                }
                let plain = AnalyticsQuery {
                    group_by: group_by.to_vec(),
                    ..question(from, to, granularity)
                };
                let mut queries = vec![
                    AnalyticsQuery { model: Some(ModelName::new("gpt-4")), ..plain.clone() },
                    AnalyticsQuery { request_type: Some(RequestType::Plagiarism), ..plain.clone() },
                    AnalyticsQuery { plan: Some(PlanName::new("basic")), top: 3, ..plain.clone() },
                ];
                if granularity != Granularity::Hour {
                    queries.push(AnalyticsQuery {
                        user_id: Some(user(3)),
                        top: 2,
                        ..plain.clone()
                    });
                }
                queries.push(plain);
                for query in queries {
                    let found = ledger.analytics(&query).await.unwrap();
                    let expected = Analytics { previous: found.previous, ..expected(&query) };
                    assert_eq!(found, expected, "{query:?}");
                }
            }
        }
    }
}

pub(crate) async fn buckets_of_months_follow_the_calendar(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    count_many(subject).await;
    let query = question("2026-10-01T00:00:00Z", "2026-12-01T00:00:00Z", Granularity::Month);
    let series = subject.ledger().analytics(&query).await.unwrap().series;
    let starts: Vec<_> = series.iter().map(|row| row.start.to_string()).collect();
    assert_eq!(starts, ["2026-10-01T00:00:00.000Z", "2026-11-01T00:00:00.000Z"]);
    assert_eq!(series.iter().map(|row| row.totals.events).sum::<u64>(), 300);
}

pub(crate) async fn the_span_before_has_the_same_length(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    count_many(subject).await;
    let now = question("2026-10-20T10:20:30Z", "2026-10-30T22:20:30Z", Granularity::Day);
    let before = question("2026-10-09T22:20:30Z", "2026-10-20T10:20:30Z", Granularity::Day);
    for user_id in [None, Some(user(3))] {
        let now = AnalyticsQuery { user_id, ..now.clone() };
        let before = AnalyticsQuery { user_id, ..before.clone() };
        let answer = subject.ledger().analytics(&now).await.unwrap();
        assert_eq!(answer.previous, expected(&before).totals);
        assert!(answer.previous.events > 0);
    }
}

pub(crate) async fn the_largest_users_come_first(subject: &impl Subject<Ledger: UsageReports>) {
    let ledger = subject.ledger();
    let events = [(1, 50), (2, 70), (3, 10), (1, 30)];
    let events =
        events.map(|(number, prompt)| tokens(event(user(number), &format!("{prompt}")), prompt, 0));
    counted(&*ledger, events).await;
    let span = question("2026-10-15T00:00:00Z", "2026-10-16T00:00:00Z", Granularity::Hour);
    let top = ledger.analytics(&AnalyticsQuery { top: 2, ..span }).await.unwrap().top_users;
    let largest = [(1, 80), (2, 70)];
    assert_eq!(
        top,
        largest.map(|(number, total_tokens)| UserTotal { user_id: user(number), total_tokens })
    );
}

pub(crate) async fn a_filter_on_what_was_never_seen_finds_nothing(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    count_many(subject).await;
    let all = question("2026-10-01T12:00:00Z", "2026-12-01T00:00:00Z", Granularity::Day);
    let queries = [
        AnalyticsQuery { model: Some(ModelName::new("gpt-7")), ..all.clone() },
        AnalyticsQuery { plan: Some(PlanName::new("gold")), ..all.clone() },
        AnalyticsQuery { user_id: Some(user(99)), top: 5, ..all },
    ];
    for query in queries {
        assert_eq!(subject.ledger().analytics(&query).await.unwrap(), Analytics::default());
    }
}
