//! One user's events, newest first.

use clickhouse::Row;
use metering::Unavailable;
use metering::time::Timestamp;
use metering::usage::{
    EventId, Flags, HistoryPosition, HistoryQuery, HistoryRow, Metadata, ModelName, Offset,
    Partition, TokenCounts,
};
use serde::Deserialize;

use super::stored::{request_type, type_number, unavailable};
use super::{Shared, take_over};

#[derive(Row, Deserialize)]
struct EventRow {
    log_offset: u64,
    occurred_at: i64,
    received_at: i64,
    request_type: i8,
    model: String,
    prompt_tokens: u32,
    completion_tokens: u32,
    cached_tokens: u32,
    reasoning_tokens: u32,
    flags: u8,
    event_id: String,
    metadata: String,
}

/// See `UsageReports::history`. A row that was written twice is shown once, and what is not below the
/// cursor is not counted yet.
pub(super) async fn history(
    shared: &Shared,
    query: &HistoryQuery,
) -> Result<Vec<HistoryRow>, Unavailable> {
    let partition = Partition::of(query.user_id, shared.settings.partitions);
    let counted = take_over::position(shared, partition).await?;
    // No offset is below 0, so the position (to, 0) keeps out exactly what is not before `to`.
    let before = query.to.map_or((i64::MAX, 0), |to| (to.as_millis(), 0));
    let position = |after: HistoryPosition| (after.occurred_at.as_millis(), after.offset.number());
    let (newest, offset) = before.min(query.after.map_or((i64::MAX, 0), position));
    let newest = newest.min(Timestamp::MAX.as_millis() + 1);
    let select = shared
        .clickhouse
        .query(include_str!("sql/history.sql"))
        .param("user", query.user_id.to_string())
        .param("counted", counted.number())
        .param("newest", newest)
        .param("offset", offset)
        .param("from", query.from.unwrap_or(Timestamp::MIN).as_millis())
        .param("of_model", u8::from(query.model.is_some()))
        .param("model", query.model.as_ref().map_or("", ModelName::as_str))
        .param("type", query.request_type.map_or(-1, type_number))
        .param("rows", query.rows_max);
    let rows = shared.ask(select.fetch_all::<EventRow>()).await?;
    rows.into_iter().map(read_row).collect()
}

fn read_row(row: EventRow) -> Result<HistoryRow, Unavailable> {
    Ok(HistoryRow {
        position: HistoryPosition {
            occurred_at: Timestamp::from_millis(row.occurred_at),
            offset: Offset::new(row.log_offset),
        },
        event_id: EventId::new(&row.event_id).map_err(unavailable)?,
        request_type: request_type(row.request_type)?,
        model: ModelName::new(&row.model),
        tokens: TokenCounts {
            prompt: row.prompt_tokens,
            completion: row.completion_tokens,
            cached: row.cached_tokens,
            reasoning: row.reasoning_tokens,
        },
        received_at: Timestamp::from_millis(row.received_at),
        flags: Flags::from_bits(row.flags),
        metadata: (!row.metadata.is_empty()).then(|| Metadata::from_stored(row.metadata)),
    })
}
