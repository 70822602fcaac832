//! Events for tests.

use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, CountedEvent, EventId, Flags, IdOrigin, Metadata, ModelName, Offset,
    RequestType, TokenCounts, UsageEvent,
};
use rusqlite::Connection;

/// A ledger in memory, with nothing in it.
pub(super) fn empty() -> Connection {
    let open = Connection::open_in_memory().unwrap();
    for migration in [
        include_str!("../../../../../migrations/sqlite/ledger/0001_ledger.sql"),
        include_str!("../../../../../migrations/sqlite/ledger/0003_blocks.sql"),
    ] {
        open.execute_batch(migration).unwrap();
    }
    open
}

/// An event that the log took and that occurred at `log_time`, of one of seven users.
pub(super) fn counted(offset: u64, log_time: i64, note: Option<&str>) -> CountedEvent {
    let event = UsageEvent {
        user_id: UserId::from_bytes([u8::try_from(offset % 7).unwrap(); 16]),
        event_id: EventId::new(&format!("event {offset}")).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-4"),
        tokens: TokenCounts { prompt: 10, completion: 2, cached: 1, reasoning: 1 },
        occurred_at: Timestamp::from_millis(log_time),
        occurred_at_given: true,
        received_at: Timestamp::from_millis(log_time),
        reservation_id: None,
        metadata: note.map(Metadata::from_stored),
    };
    let admitted = AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        plan: PlanName::new("free"),
        admitted_at: Timestamp::from_millis(log_time),
        flags: Flags::default(),
        over_hold: 0,
        event,
    };
    let (offset, log_time) = (Offset::new(offset), Timestamp::from_millis(log_time));
    CountedEvent { offset, log_time, admitted: Box::new(admitted) }
}
