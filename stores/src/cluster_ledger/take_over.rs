//! Taking a partition over, and what is known of its ids from then on.

use std::collections::HashSet;
use std::time::Duration;

use clickhouse::Row;
use metering::Unavailable;
use metering::quota::MARGIN;
use metering::time::Timestamp;
use metering::usage::{
    ContentDigest, Cursor, HORIZON_MAX, Horizon, IdDigest, LogRecord, Offset, Partition, Payload,
    SeenIds,
};
use serde::Deserialize;

use super::applying::read_cursor;
use super::counted_ids::CountedIds;
use super::owned::{Owned, length};
use super::stored::{STORE, partition_number, stored, unavailable};
use super::{Shared, lookup};

/// Between two rows of ids that are loaded nothing takes so long, but a server that hangs.
const NEXT_ROW_WITHIN: Duration = Duration::from_secs(60);

/// The first offset of the generation that is counted.
pub(super) fn first_offset(shared: &Shared) -> Offset {
    Offset::first_of(shared.settings.generation)
}

/// See `UsageLedger::take_over`.
pub(super) async fn take_over(
    shared: &Shared,
    partition: Partition,
) -> Result<Cursor, Unavailable> {
    let cursor = begin_cursor(shared, partition).await?;
    let found = cursor.position.generation();
    if found != u64::from(shared.settings.generation) {
        let expected = shared.settings.generation;
        return Err(unavailable(format!(
            "partition {partition} stands in generation {found} of the event log, this process counts \
             generation {expected}: `tokenmeter migrate` ends what `--new-log` began, and then every \
             process must be started anew"
        )));
    }
    if shared.partitions.resume(cursor) {
        return Ok(cursor);
    }
    let mut window = length(cursor.horizon);
    if window < HORIZON_MAX {
        // There may be room again: then the horizon may grow back as far as it is loaded.
        let longest = cursor.log_time.minus(HORIZON_MAX + MARGIN);
        if count_ids(shared, &cursor, longest).await? <= shared.partitions.room() {
            window = HORIZON_MAX;
        }
    }
    let ids = load_ids(shared, &cursor, cursor.log_time.minus(window + MARGIN)).await?;
    shared.partitions.put(Owned::new(cursor, ids));
    Ok(cursor)
}

/// Makes the cursor of a partition that was never seen, and reads it.
async fn begin_cursor(shared: &Shared, partition: Partition) -> Result<Cursor, Unavailable> {
    let number = partition_number(partition)?;
    let first = stored(first_offset(shared).number())?;
    let horizon = i64::try_from(HORIZON_MAX.as_millis()).map_err(unavailable)?;
    let reading = async {
        sqlx::query(include_str!("sql/begin_cursor.sql"))
            .bind(number)
            .bind(first)
            .bind(Timestamp::MIN.as_millis())
            .bind(horizon)
            .execute(shared.postgres.pool())
            .await?;
        // Waits for a commit that is still under way, be it of an owner that has gone: otherwise it
        // would move the cursor after it was read here.
        let select = "SELECT log_partition, position, log_time, horizon FROM cursors \
                      WHERE log_partition = $1 FOR SHARE";
        let row = sqlx::query(select).bind(number).fetch_one(shared.postgres.pool()).await?;
        read_cursor(&row)
    };
    shared.postgres.within(STORE, reading).await
}

/// Where a partition stands; at the first offset when it was never seen.
pub(super) async fn position(shared: &Shared, partition: Partition) -> Result<Offset, Unavailable> {
    let number = partition_number(partition)?;
    let select = "SELECT position FROM cursors WHERE log_partition = $1";
    let select = sqlx::query_scalar::<_, i64>(select).bind(number);
    let reading = async { select.fetch_optional(shared.postgres.pool()).await };
    let position = shared.postgres.within(STORE, reading).await?;
    let position = position.and_then(|position| u64::try_from(position).ok());
    Ok(position.map_or(first_offset(shared), Offset::new))
}

#[derive(Row, Deserialize)]
struct IdRow {
    id_digest: u128,
    content_digest: u64,
    log_time: i64,
}

/// The ids counted below the cursor, at `since` or later.
async fn load_ids(
    shared: &Shared,
    cursor: &Cursor,
    since: Timestamp,
) -> Result<CountedIds, Unavailable> {
    if cursor.log_time == Timestamp::MIN {
        return Ok(CountedIds::since(Timestamp::MIN));
    }
    let mut ids = CountedIds::since(since);
    let select = shared.clickhouse.query(include_str!("sql/load_ids.sql"));
    let mut rows = select
        .param("partition", cursor.partition.number())
        .param("below", cursor.position.number())
        .param("since", since.as_millis())
        .fetch::<IdRow>()
        .map_err(unavailable)?;
    loop {
        let next = tokio::time::timeout(NEXT_ROW_WITHIN, rows.next()).await;
        let Some(row) = next.map_err(unavailable)?.map_err(unavailable)? else { break };
        let id = IdDigest(row.id_digest.to_le_bytes());
        let content = ContentDigest(row.content_digest.to_le_bytes());
        ids.insert(id, content, Timestamp::from_millis(row.log_time));
    }
    Ok(ids)
}

async fn count_ids(
    shared: &Shared,
    cursor: &Cursor,
    since: Timestamp,
) -> Result<usize, Unavailable> {
    let select = shared
        .clickhouse
        .query(include_str!("sql/count_ids.sql"))
        .param("partition", cursor.partition.number())
        .param("below", cursor.position.number())
        .param("since", since.as_millis());
    let count = shared.ask(select.fetch_one::<u64>()).await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// What records ask of the ledger.
struct Asked {
    ids: Vec<IdDigest>,
    /// Ids whose events say that they may be older than the horizon.
    outlived: HashSet<IdDigest>,
    /// The oldest count that the horizon of any of them reaches.
    reach: Timestamp,
}

impl Asked {
    fn by(records: &[LogRecord], mut horizon: Horizon) -> Self {
        let mut asked = Self { ids: Vec::new(), outlived: HashSet::new(), reach: Timestamp::MAX };
        for record in records {
            match &record.payload {
                Payload::Tick(tick) => horizon = tick.horizon,
                Payload::Undecodable { .. } => {}
                Payload::Event(admitted) => {
                    let horizon = Horizon::Within(length(horizon));
                    asked.ids.push(admitted.id_digest);
                    if horizon.outlived_by(admitted, record.log_time) {
                        asked.outlived.insert(admitted.id_digest);
                    }
                    asked.reach = asked.reach.min(record.log_time.minus(length(horizon)));
                }
            }
        }
        asked
    }
}

/// See `UsageLedger::seen`.
pub(super) async fn seen(
    shared: &Shared,
    partition: Partition,
    horizon: Horizon,
    records: &[LogRecord],
) -> Result<SeenIds, Unavailable> {
    let Some(first) = records.first() else { return Ok(SeenIds::new()) };
    shared.partitions.folds(partition)?;
    let asked = Asked::by(records, horizon);
    let (cursor, floor) =
        shared.partitions.with(partition, |owned| (owned.cursor, owned.ids.floor()))?;
    if cursor.position != first.offset {
        let (stands, begins) = (cursor.position, first.offset);
        return Err(unavailable(format!(
            "partition {partition} stands at {stands}, the records begin at {begins}"
        )));
    }
    if asked.reach < floor {
        // The horizon has grown further back than the memory reaches.
        let ids = load_ids(shared, &cursor, asked.reach.minus(MARGIN)).await?;
        shared.partitions.with(partition, |owned| {
            if owned.cursor == cursor {
                owned.ids = ids;
            }
        })?;
    }
    let mut seen = shared.partitions.with(partition, |owned| {
        let known = asked.ids.iter().filter_map(|id| Some((*id, owned.ids.get(id)?)));
        known.collect::<SeenIds>()
    })?;
    let mut unknown = asked.outlived;
    unknown.retain(|id| !seen.contains_key(id));
    if !unknown.is_empty() {
        let unknown: Vec<_> = unknown.into_iter().collect();
        let below = |_, offset| offset < first.offset;
        for (id, found) in lookup::find(shared, &unknown, below).await? {
            seen.insert(id, found.seen);
        }
    }
    Ok(seen)
}
