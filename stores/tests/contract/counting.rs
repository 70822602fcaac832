//! A log in memory and the way its records are counted, for the suites of the ledger.

use std::sync::Arc;

use metering::accounts::UserId;
use metering::quota::{ModelCatalogue, PlanCatalogue, PlanName, Totals};
use metering::time::{Period, Timestamp};
use metering::usage::{
    AdmittedEvent, AlertRules, CommitError, Committed, EventId, Flags, Flush, HORIZON_MAX, Horizon,
    IdDigest, IdOrigin, LedgerLookup, LogRecord, Metadata, ModelName, Offset, Partition, Payload,
    RequestType, TokenCounts, UsageEvent, UsageLedger, fold,
};

/// A ledger under test.
pub(crate) trait Subject {
    /// The adapter, or what holds the adapters that make up a ledger.
    type Ledger: UsageLedger + LedgerLookup + 'static;
    fn ledger(&self) -> Arc<Self::Ledger>;
    /// As after a restart of the process. Nobody else may hold the ledger.
    fn reopen(&self);
}

pub(crate) const PARTITION: Partition = Partition::SINGLE;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(crate) const OCTOBER: &str = "2026-10";

pub(crate) fn period(text: &str) -> Period {
    text.parse().unwrap()
}

/// An event of `user` with that id: 100 prompt and 20 completion tokens of chat on gpt-4.
pub(crate) fn event(user: UserId, id: &str) -> UsageEvent {
    UsageEvent {
        user_id: user,
        event_id: EventId::new(id).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-4"),
        tokens: TokenCounts { prompt: 100, completion: 20, cached: 7, reasoning: 3 },
        occurred_at: at("2026-10-15T12:30:00Z"),
        occurred_at_given: true,
        received_at: at("2026-10-15T12:30:01Z"),
        reservation_id: None,
        metadata: None,
    }
}

pub(crate) fn with_metadata(mut event: UsageEvent, text: &str) -> UsageEvent {
    event.metadata = Some(Metadata::from_stored(text));
    event
}

pub(crate) fn occurred(mut event: UsageEvent, text: &str) -> UsageEvent {
    event.occurred_at = at(text);
    event
}

pub(crate) fn tokens(mut event: UsageEvent, prompt: u32, completion: u32) -> UsageEvent {
    event.tokens = TokenCounts { prompt, completion, cached: 0, reasoning: 0 };
    event
}

pub(crate) fn of(mut event: UsageEvent, request_type: RequestType, model: &str) -> UsageEvent {
    event.request_type = request_type;
    event.model = ModelName::new(model);
    event
}

pub(crate) fn admitted(event: UsageEvent, plan: &str) -> AdmittedEvent {
    AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        plan: PlanName::new(plan),
        admitted_at: event.received_at,
        flags: Flags::default(),
        over_hold: 0,
        event,
    }
}

/// What totals `requests` requests of chat with `tokens` tokens make.
pub(crate) fn chat(tokens: u64, requests: u64) -> Totals {
    Totals { tokens, requests: [requests, 0, 0] }
}

/// A log, and how far it is counted in a ledger.
#[derive(Clone, Default)]
pub(crate) struct Log {
    records: Vec<LogRecord>,
    counted: usize,
    alert_rules: AlertRules,
}

impl Log {
    /// One whose flushes raise the alerts of the plans that the program brings along.
    pub(crate) fn with_alerts() -> Self {
        let models = ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap();
        let plans = PlanCatalogue::from_toml(PlanCatalogue::DEFAULT_TOML, &models).unwrap();
        Self { alert_rules: AlertRules::of(&plans), ..Self::default() }
    }

    /// Log time: a second per record.
    pub(crate) fn time(offset: u64) -> Timestamp {
        Timestamp::from_millis(1_792_000_000_000 + i64::try_from(offset).unwrap() * 1000)
    }

    pub(crate) fn end(&self) -> Offset {
        Offset::new(self.records.len() as u64)
    }

    pub(crate) fn append_payload(&mut self, payload: Payload) -> Offset {
        let offset = self.end();
        let log_time = Self::time(offset.number());
        self.records.push(LogRecord { offset, log_time, payload });
        offset
    }

    pub(crate) fn append(&mut self, event: UsageEvent) -> Offset {
        let mut admitted = admitted(event, "free");
        // In time for the log.
        admitted.admitted_at = Self::time(self.end().number());
        self.append_payload(Payload::Event(Box::new(admitted)))
    }

    /// Takes the first `records` as counted.
    pub(crate) fn skip(&mut self, records: usize) {
        self.counted = records;
    }

    /// The flush of what is not counted yet, as the aggregator makes it.
    pub(crate) async fn flush(&self, ledger: &impl UsageLedger) -> Flush {
        let records = self.records[self.counted..].to_vec();
        let horizon = ledger.horizon(PARTITION, Horizon::Within(HORIZON_MAX));
        let seen = ledger.seen(PARTITION, horizon, &records).await.unwrap();
        let mut flush = fold(PARTITION, horizon, records, &seen).unwrap();
        flush.watched = self.alert_rules.watched(&flush);
        flush
    }

    /// Counts what is not counted yet.
    pub(crate) async fn count(
        &mut self,
        ledger: &(impl UsageLedger + LedgerLookup),
    ) -> Result<Committed, CommitError> {
        ledger.take_over(PARTITION).await?;
        let flush = self.flush(ledger).await;
        let committed = ledger.commit(flush).await?;
        self.counted = self.records.len();
        Ok(committed)
    }
}

/// A ledger in which these events are counted, all in one flush.
pub(crate) async fn counted(
    ledger: &(impl UsageLedger + LedgerLookup),
    events: impl IntoIterator<Item = UsageEvent>,
) -> Log {
    let mut log = Log::default();
    for event in events {
        log.append(event);
    }
    log.count(ledger).await.unwrap();
    log
}

pub(crate) fn key(event: &UsageEvent) -> (UserId, IdDigest) {
    (event.user_id, event.id_digest())
}
