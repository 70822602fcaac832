//! Moves the events of an older ledger, each a row of its own, into blocks.

use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, ContentDigest, CountedEvent, EventId, Flags, IdDigest, IdOrigin, Metadata,
    ModelName, Offset, TokenCounts, UsageEvent,
};
use rusqlite::{Connection, Row, TransactionBehavior};

use super::Events;
use super::coding::damaged;
use crate::sqlite::ledger::erasure::Erased;
use crate::sqlite::ledger::numbers::Numbers;
use crate::sqlite::ledger::row::{bytes, count, request_type, stored, user_id};

/// Rows that one transaction moves.
const MOVED_AT_ONCE: usize = 50_000;

/// Moves what is left of the rows, step by step: when the process is killed, the next one goes on; when
/// two do so at once, they take turns.
pub(in crate::sqlite::ledger) fn convert(open: &mut Connection) -> rusqlite::Result<()> {
    let rows = "SELECT 1 FROM sqlite_master WHERE name = 'events'";
    if !open.prepare(rows)?.exists([])? {
        return Ok(());
    }
    // What is erased later must not stay behind in pages that these rows leave.
    open.pragma_update(None, "secure_delete", true)?;
    let mut events = Events::new()?;
    let mut moved_in_all = 0;
    loop {
        let step = open.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !step.prepare(rows)?.exists([])? {
            break;
        }
        let moved = move_some(&step, &mut events)?;
        if moved == 0 {
            step.execute_batch("DROP TABLE events")?;
        }
        step.commit()?;
        if moved == 0 {
            break;
        }
        moved_in_all += moved;
        tracing::info!(events = moved_in_all, "the ledger's events move into blocks");
    }
    open.pragma_update(None, "secure_delete", false)
}

fn move_some(open: &Connection, events: &mut Events) -> rusqlite::Result<usize> {
    let counted: Vec<_> = open
        .prepare(include_str!("../sql/event_rows.sql"))?
        .query_map([stored(MOVED_AT_ONCE as u64)?], read)?
        .collect::<rusqlite::Result<_>>()?;
    let (Some(first), Some(last)) = (counted.first(), counted.last()) else { return Ok(0) };
    let mut numbers = Numbers::default();
    events.insert(open, &mut numbers, &mut Erased::default(), (first.offset, &counted))?;
    open.execute("DELETE FROM events WHERE offset <= ?", [stored(last.offset.number())?])?;
    Ok(counted.len())
}

/// The rows had less than the log's records: who made the id, whether the client said the time, and the
/// hold were not kept. What nobody asks of a counted event stands as if it had come with the least.
fn read(row: &Row<'_>) -> rusqlite::Result<CountedEvent> {
    let log_time = Timestamp::from_millis(row.get(3)?);
    let user_id: UserId = user_id(row, 1)?;
    let event = UsageEvent {
        user_id,
        event_id: EventId::new(row.get_ref(15)?.as_str()?).map_err(damaged)?,
        id_origin: IdOrigin::Client,
        request_type: request_type(row, 4)?,
        model: ModelName::new(row.get_ref(5)?.as_str()?),
        tokens: TokenCounts {
            prompt: row.get(7)?,
            completion: row.get(8)?,
            cached: row.get(9)?,
            reasoning: row.get(10)?,
        },
        occurred_at: Timestamp::from_millis(row.get(2)?),
        occurred_at_given: false,
        received_at: Timestamp::from_millis(row.get(17)?),
        reservation_id: None,
        metadata: row.get::<_, Option<String>>(16)?.map(Metadata::from_stored),
    };
    let admitted = AdmittedEvent {
        event,
        id_digest: IdDigest(bytes(row, 13)?),
        content_digest: ContentDigest(bytes(row, 14)?),
        plan: PlanName::new(row.get_ref(6)?.as_str()?),
        admitted_at: log_time,
        flags: Flags::from_bits(row.get(11)?),
        over_hold: count(row, 12)?,
    };
    Ok(CountedEvent { offset: Offset::new(count(row, 0)?), log_time, admitted: Box::new(admitted) })
}
