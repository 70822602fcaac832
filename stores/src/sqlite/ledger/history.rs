//! One user's events, newest first.

use metering::time::Timestamp;
use metering::usage::{CountedEvent, HistoryPosition, HistoryQuery, HistoryRow, RequestType};
use rusqlite::Connection;

use super::events::{self, Position, Wanted};
use super::row::{name_number, stored, user_number};

/// Above every row: positions that bound a page are exclusive.
pub(super) const NEWEST: Position = (i64::MAX, 0);

/// See `UsageReports::history`. `open` must be in a transaction.
pub(super) fn history(
    open: &Connection,
    query: &HistoryQuery,
) -> rusqlite::Result<Vec<HistoryRow>> {
    // No offset is below 0, so the position (to, 0) keeps out exactly what is not before `to`.
    let before = query.to.map_or(NEWEST, |to| (to.as_millis(), 0));
    let after = query.after.map_or(Ok(NEWEST), stored_position)?;
    let model = query.model.as_ref().map(|model| name_number(open, model.as_str()));
    let wanted = Wanted {
        user: user_number(open, query.user_id)?,
        before: before.min(after),
        from: query.from.unwrap_or(Timestamp::MIN).as_millis(),
        model: model.transpose()?,
        request_type: query.request_type.map(RequestType::number),
    };
    let rows = events::history(open, wanted)?.take(query.rows_max);
    rows.map(|event| event.map(row_of)).collect()
}

fn stored_position(position: HistoryPosition) -> rusqlite::Result<Position> {
    Ok((position.occurred_at.as_millis(), stored(position.offset.number())?))
}

fn row_of(counted: CountedEvent) -> HistoryRow {
    let (event, flags) = (counted.admitted.event, counted.admitted.flags);
    HistoryRow {
        position: HistoryPosition { occurred_at: event.occurred_at, offset: counted.offset },
        event_id: event.event_id,
        request_type: event.request_type,
        model: event.model,
        tokens: event.tokens,
        received_at: event.received_at,
        flags,
        metadata: event.metadata,
    }
}
