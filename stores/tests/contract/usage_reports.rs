//! The rules of the port `UsageReports`.

use std::collections::BTreeMap;

use metering::quota::PlanName;
use metering::time::{Day, Timestamp};
use metering::usage::{
    Analytics, AnalyticsQuery, DeadLetters, Dimension, Flag, Flags, Granularity, HistoryQuery,
    HistoryRow, ModelName, Payload, RequestType, TypeTotals, UsageEvent, UsageReports, UsageTotals,
    UserTotal,
};

use super::counting::{
    Log, OCTOBER, Subject, admitted, at, chat, counted, event, occurred, of, period, tokens, user,
    with_metadata,
};

macro_rules! usage_reports_contract {
    ($make:expr) => {
        rules!(
            usage_reports,
            usage_reports_rules,
            $make,
            [
                a_month_of_nothing_is_all_zero,
                the_sums_of_a_month_agree,
                a_month_holds_its_first_and_last_instant_only,
                a_month_stands_at_the_log_time_of_the_cursor,
                history_is_newest_first,
                events_of_one_instant_are_ordered_by_the_log,
                pages_of_history_hold_every_row_once,
                pages_survive_new_rows,
                history_is_filtered,
                a_history_row_shows_the_whole_event,
                analytics_agree_with_the_events_for_any_question,
                buckets_of_months_follow_the_calendar,
                the_span_before_has_the_same_length,
                the_largest_users_come_first,
                a_filter_on_what_was_never_seen_finds_nothing,
                erased_metadata_is_gone_and_counts_stay,
                events_of_an_erased_user_come_without_metadata,
                a_user_may_be_erased_before_the_first_event,
            ]
        );
    };
}

pub(crate) async fn a_month_of_nothing_is_all_zero(subject: &impl Subject<Ledger: UsageReports>) {
    let usage = subject.ledger().monthly(user(1), period(OCTOBER)).await.unwrap();
    assert_eq!(usage.period, period(OCTOBER));
    assert_eq!(usage.totals, chat(0, 0));
    assert_eq!(usage.breakdown, [TypeTotals::default(); 3]);
    assert_eq!((usage.models, usage.daily, usage.as_of), (BTreeMap::new(), vec![], None));
}

pub(crate) async fn the_sums_of_a_month_agree(subject: &impl Subject<Ledger: UsageReports>) {
    let ledger = subject.ledger();
    let checked = of(event(user(1), "c"), RequestType::Plagiarism, "gpt-4");
    let events = [
        tokens(occurred(event(user(1), "a"), "2026-10-02T01:00:00Z"), 10, 1),
        of(
            tokens(occurred(event(user(1), "b"), "2026-10-02T23:00:00Z"), 20, 2),
            RequestType::Chat,
            "gpt-4o",
        ),
        tokens(occurred(checked, "2026-10-31T00:00:00Z"), 30, 3),
        tokens(event(user(2), "a"), 1000, 0),
    ];
    counted(&*ledger, events).await;
    let usage = ledger.monthly(user(1), period(OCTOBER)).await.unwrap();
    assert_eq!((usage.totals.tokens, usage.totals.requests), (66, [2, 1, 0]));
    let sums = |prompt_tokens, completion_tokens| TypeTotals { prompt_tokens, completion_tokens };
    assert_eq!(usage.breakdown, [sums(30, 3), sums(30, 3), sums(0, 0)]);
    let models = [("gpt-4", 44), ("gpt-4o", 22)];
    assert_eq!(usage.models, models.map(|(name, sum)| (ModelName::new(name), sum)).into());
    let days = [("2026-10-02", 33), ("2026-10-31", 33)];
    assert_eq!(usage.daily, days.map(|(day, sum)| (day.parse::<Day>().unwrap(), sum)));
}

pub(crate) async fn a_month_holds_its_first_and_last_instant_only(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    let ledger = subject.ledger();
    let times = [
        "2026-09-30T23:59:59.999Z",
        "2026-10-01T00:00:00.000Z",
        "2026-10-31T23:59:59.999Z",
        "2026-11-01T00:00:00.000Z",
    ];
    counted(&*ledger, times.map(|time| occurred(event(user(1), time), time))).await;
    let usage = ledger.monthly(user(1), period(OCTOBER)).await.unwrap();
    assert_eq!(usage.totals, chat(240, 2));
    let days = ["2026-10-01", "2026-10-31"].map(|day| (day.parse::<Day>().unwrap(), 120));
    assert_eq!(usage.daily, days);
}

pub(crate) async fn a_month_stands_at_the_log_time_of_the_cursor(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    let ledger = subject.ledger();
    counted(&*ledger, [event(user(1), "a"), event(user(2), "a")]).await;
    let usage = ledger.monthly(user(1), period(OCTOBER)).await.unwrap();
    assert_eq!(usage.as_of, Some(Log::time(1)));
}

fn all_of(user_id: metering::accounts::UserId) -> HistoryQuery {
    HistoryQuery {
        user_id,
        from: None,
        to: None,
        model: None,
        request_type: None,
        after: None,
        rows_max: 1000,
    }
}

fn ids(rows: &[HistoryRow]) -> Vec<&str> {
    rows.iter().map(|row| row.event_id.as_str()).collect()
}

pub(crate) async fn history_is_newest_first(subject: &impl Subject<Ledger: UsageReports>) {
    let ledger = subject.ledger();
    let events = [
        occurred(event(user(1), "middle"), "2026-10-02T00:00:00Z"),
        occurred(event(user(1), "newest"), "2026-10-03T00:00:00Z"),
        occurred(event(user(1), "oldest"), "2026-10-01T00:00:00Z"),
        event(user(2), "foreign"),
    ];
    counted(&*ledger, events).await;
    let rows = ledger.history(&all_of(user(1))).await.unwrap();
    assert_eq!(ids(&rows), ["newest", "middle", "oldest"]);
    assert_eq!(ledger.history(&all_of(user(3))).await.unwrap(), []);
}

pub(crate) async fn events_of_one_instant_are_ordered_by_the_log(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    let ledger = subject.ledger();
    counted(&*ledger, ["a", "b", "c"].map(|id| event(user(1), id))).await;
    assert_eq!(ids(&ledger.history(&all_of(user(1))).await.unwrap()), ["c", "b", "a"]);
}

/// 40 events of one user at 10 instants.
fn forty() -> impl Iterator<Item = UsageEvent> {
    (0..40).map(|number| {
        let time = format!("2026-10-1{}T00:00:00Z", number * 7 % 10);
        occurred(event(user(1), &format!("event {number}")), &time)
    })
}

pub(crate) async fn pages_of_history_hold_every_row_once(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    let ledger = subject.ledger();
    counted(&*ledger, forty()).await;
    let whole = ledger.history(&all_of(user(1))).await.unwrap();
    assert_eq!(whole.len(), 40);
    for rows_max in [1, 3, 7, 40, 41] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let query = HistoryQuery { after, rows_max, ..all_of(user(1)) };
            let page = ledger.history(&query).await.unwrap();
            assert!(page.len() <= rows_max);
            let Some(last) = page.last() else { break };
            after = Some(last.position);
            paged.extend(page);
        }
        assert_eq!(paged, whole, "pages of {rows_max}");
    }
}

pub(crate) async fn pages_survive_new_rows(subject: &impl Subject<Ledger: UsageReports>) {
    let ledger = subject.ledger();
    let mut log = counted(&*ledger, forty()).await;
    let before = ledger.history(&all_of(user(1))).await.unwrap();
    let first = HistoryQuery { rows_max: 10, ..all_of(user(1)) };
    let after = ledger.history(&first).await.unwrap().last().map(|row| row.position);
    log.append(occurred(event(user(1), "new"), "2026-10-25T00:00:00Z"));
    log.count(&*ledger).await.unwrap();
    let rest = ledger.history(&HistoryQuery { after, ..all_of(user(1)) }).await.unwrap();
    assert_eq!(rest, before[10..]);
}

pub(crate) async fn history_is_filtered(subject: &impl Subject<Ledger: UsageReports>) {
    let ledger = subject.ledger();
    let events = [
        occurred(event(user(1), "early"), "2026-10-01T00:00:00Z"),
        occurred(event(user(1), "from"), "2026-10-02T00:00:00Z"),
        of(
            occurred(event(user(1), "other"), "2026-10-03T00:00:00Z"),
            RequestType::Plagiarism,
            "gpt-4o",
        ),
        occurred(event(user(1), "to"), "2026-10-04T00:00:00Z"),
    ];
    counted(&*ledger, events).await;
    let span = HistoryQuery {
        from: Some(at("2026-10-02T00:00:00Z")),
        to: Some(at("2026-10-04T00:00:00Z")),
        ..all_of(user(1))
    };
    assert_eq!(ids(&ledger.history(&span).await.unwrap()), ["other", "from"]);
    let model = HistoryQuery { model: Some(ModelName::new("gpt-4o")), ..all_of(user(1)) };
    assert_eq!(ids(&ledger.history(&model).await.unwrap()), ["other"]);
    let unknown = HistoryQuery { model: Some(ModelName::new("gpt-7")), ..all_of(user(1)) };
    assert_eq!(ledger.history(&unknown).await.unwrap(), []);
    let chats = HistoryQuery { request_type: Some(RequestType::Chat), ..all_of(user(1)) };
    assert_eq!(ids(&ledger.history(&chats).await.unwrap()), ["to", "from", "early"]);
}

pub(crate) async fn a_history_row_shows_the_whole_event(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    let told = with_metadata(event(user(1), "ä \u{1f600}"), "{\"tag\":\"ü\"}");
    let flags = Flags::default().with(Flag::OverLimit).with(Flag::Replayed);
    let mut entry = admitted(told.clone(), "professional");
    entry.flags = flags;
    let offset = log.append_payload(Payload::Event(Box::new(entry)));
    log.count(&*ledger).await.unwrap();
    let row = ledger.history(&all_of(user(1))).await.unwrap().remove(0);
    assert_eq!((row.position.occurred_at, row.position.offset), (told.occurred_at, offset));
    assert_eq!(row.event_id, told.event_id);
    assert_eq!(
        (row.request_type, row.model, row.tokens),
        (told.request_type, told.model, told.tokens)
    );
    assert_eq!(
        (row.received_at, row.flags, row.metadata),
        (told.received_at, flags, told.metadata)
    );
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

pub(crate) async fn erased_metadata_is_gone_and_counts_stay(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    let ledger = subject.ledger();
    let mut log = Log::default();
    for number in 0..2500 {
        log.append(noted(1, &format!("event {number}")));
    }
    log.append(noted(2, "foreign"));
    log.count(&*ledger).await.unwrap();
    let before = ledger.monthly(user(1), period(OCTOBER)).await.unwrap();
    ledger.erase_metadata(user(1)).await.unwrap();
    let all = HistoryQuery { rows_max: 10_000, ..all_of(user(1)) };
    let rows = ledger.history(&all).await.unwrap();
    assert_eq!(rows.len(), 2500);
    assert!(rows.iter().all(|row| row.metadata.is_none()));
    assert_eq!(ledger.monthly(user(1), period(OCTOBER)).await.unwrap(), before);
    let foreign = ledger.history(&all_of(user(2))).await.unwrap();
    assert!(foreign[0].metadata.is_some());
}

fn noted(number: u8, id: &str) -> UsageEvent {
    with_metadata(event(user(number), id), "{\"secret\":1}")
}

pub(crate) async fn events_of_an_erased_user_come_without_metadata(
    subject: &impl Subject<Ledger: UsageReports + DeadLetters>,
) {
    let mut log = counted(&*subject.ledger(), [noted(1, "a"), noted(2, "a")]).await;
    subject.ledger().erase_metadata(user(1)).await.unwrap();
    // These stood in the log while the user was erased; the third uses the id of the first.
    log.append(noted(1, "b"));
    log.append(noted(2, "b"));
    log.append(tokens(noted(1, "a"), 9, 9));
    log.append(tokens(noted(2, "a"), 9, 9));
    subject.reopen();
    let ledger = subject.ledger();
    log.count(&*ledger).await.unwrap();
    let metadata = async |number| {
        let rows = ledger.history(&all_of(user(number))).await.unwrap();
        rows.iter().map(|row| row.metadata.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(metadata(1).await, [false, false]);
    assert_eq!(metadata(2).await, [true, true]);
    let letters = ledger.list().await.unwrap();
    let letters = letters.iter().map(|letter| letter.event.as_ref().unwrap());
    let with: Vec<_> = letters.map(|one| one.event.metadata.is_some()).collect();
    assert_eq!(with, [false, true]);
    let totals = ledger.monthly(user(1), period(OCTOBER)).await.unwrap().totals;
    assert_eq!(totals, chat(240, 2));
}

pub(crate) async fn a_user_may_be_erased_before_the_first_event(
    subject: &impl Subject<Ledger: UsageReports>,
) {
    let ledger = subject.ledger();
    for _ in 0..2 {
        ledger.erase_metadata(user(1)).await.unwrap();
    }
    counted(&*ledger, [noted(1, "a")]).await;
    let rows = ledger.history(&all_of(user(1))).await.unwrap();
    assert_eq!((rows.len(), &rows[0].metadata), (1, &None));
}
