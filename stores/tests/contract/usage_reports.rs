//! The rules of the port `UsageReports`, but for analytics.

use std::collections::BTreeMap;

use metering::time::Day;
use metering::usage::{
    DeadLetters, Flag, Flags, HistoryQuery, HistoryRow, ModelName, Payload, RequestType,
    TypeTotals, UsageEvent, UsageReports,
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
