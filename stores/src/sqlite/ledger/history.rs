//! One user's events, newest first.

use metering::time::Timestamp;
use metering::usage::{
    EventId, Flags, HistoryPosition, HistoryQuery, HistoryRow, Metadata, ModelName, Offset,
    RequestType, TokenCounts,
};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, Row, params};

use super::row::{count, name_number, request_type, stored};

/// Above every row: the row values that bound a page are exclusive.
pub(super) const NEWEST: (i64, i64) = (i64::MAX, 0);

/// See `UsageReports::history`.
pub(super) fn history(
    open: &Connection,
    query: &HistoryQuery,
) -> rusqlite::Result<Vec<HistoryRow>> {
    let model = query.model.as_ref().map(|model| name_number(open, model.as_str())).transpose()?;
    // No offset is below 0, so the position (to, 0) keeps out exactly what is not before `to`.
    let before = query.to.map_or(NEWEST, |to| (to.as_millis(), 0));
    let after = query.after.map_or(Ok(NEWEST), stored_position)?;
    let (occurred_at, offset) = before.min(after);
    open.prepare_cached(include_str!("sql/history.sql"))?
        .query_map(
            params![
                query.user_id.as_bytes(),
                occurred_at,
                offset,
                query.from.unwrap_or(Timestamp::MIN).as_millis(),
                model,
                query.request_type.map(RequestType::number),
                i64::try_from(query.rows_max).unwrap_or(i64::MAX),
            ],
            read_row,
        )?
        .collect()
}

fn stored_position(position: HistoryPosition) -> rusqlite::Result<(i64, i64)> {
    Ok((position.occurred_at.as_millis(), stored(position.offset.number())?))
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<HistoryRow> {
    let event_id = EventId::new(row.get_ref(10)?.as_str()?)
        .map_err(|error| Error::FromSqlConversionFailure(10, Type::Text, error.into()))?;
    Ok(HistoryRow {
        position: HistoryPosition {
            occurred_at: Timestamp::from_millis(row.get(1)?),
            offset: Offset::new(count(row, 0)?),
        },
        event_id,
        request_type: request_type(row, 3)?,
        model: ModelName::new(row.get_ref(4)?.as_str()?),
        tokens: TokenCounts {
            prompt: row.get(5)?,
            completion: row.get(6)?,
            cached: row.get(7)?,
            reasoning: row.get(8)?,
        },
        received_at: Timestamp::from_millis(row.get(2)?),
        flags: Flags::from_bits(row.get(9)?),
        metadata: row.get::<_, Option<String>>(11)?.map(Metadata::from_stored),
    })
}
