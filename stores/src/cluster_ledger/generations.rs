//! Beginning to count another log.

use clickhouse::Row;
use clickhouse::query::Query;
use metering::Unavailable;
use serde::Deserialize;

use super::books::{BOOK_TIMEOUT, Cursors, patient};
use super::repair::rebuild;
use super::stored::{stored, unavailable};
use super::take_over::first_offset;
use super::{Shared, ask_within};

/// Ids follow their events: those of rows above the cursors are written anew.
const IDS_ANEW: [&str; 3] = [
    concat!(
        "ALTER TABLE token_usage_log DELETE ",
        include_str!("sql/above_cursors.sql"),
        "SETTINGS mutations_sync = 2"
    ),
    concat!(
        "ALTER TABLE token_usage_ids DELETE ",
        include_str!("sql/above_cursors.sql"),
        "SETTINGS mutations_sync = 2"
    ),
    concat!(
        "INSERT INTO token_usage_log \
           (log_partition, log_offset, id_digest, content_digest, log_time) \
         SELECT log_partition, log_offset, id_digest, content_digest, log_time \
         FROM token_usage FINAL ",
        include_str!("sql/above_cursors.sql"),
    ),
];

/// What is left of a partition's log: events that were stored and not counted.
#[derive(Row, Deserialize)]
struct LeftOver {
    log_partition: u32,
    events: u64,
    last: i64,
}

/// See `ClusterLedger::start_generation`.
///
/// Every cursor moves past whatever commits that were cut off have stored. Nobody can make those
/// again, for the log that they came from is over: so what is left of it is counted here.
pub(super) async fn start_generation(shared: &Shared) -> Result<u64, Unavailable> {
    let first = first_offset(shared).number();
    let mut open = patient(shared, "SELECT 1").await?;
    let cursors = Cursors::read(&mut open, true).await.map_err(unavailable)?;
    let cursors = cursors.below(first);
    if cursors.partitions.is_empty() {
        return Ok(0);
    }
    for statement in IDS_ANEW {
        let statement = above(shared.clickhouse.change(statement), &cursors, first);
        ask_within(BOOK_TIMEOUT, statement.execute()).await?;
    }
    let left = left_over(shared, &cursors, first).await?;
    let (mut partitions, mut events, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for one in &left {
        partitions.push(i32::try_from(one.log_partition).map_err(unavailable)?);
        events.push(stored(one.events)?);
        last.push(one.last);
    }
    let update = sqlx::query(include_str!("sql/start_generation.sql")).bind(stored(first)?);
    let update = update.bind(partitions).bind(events).bind(last).execute(&mut *open);
    let moved = update.await.map_err(unavailable)?.rows_affected();
    if !left.is_empty() {
        rebuild(shared, &mut open).await?;
    }
    open.commit().await.map_err(unavailable)?;
    Ok(moved)
}

async fn left_over(
    shared: &Shared,
    cursors: &Cursors,
    first: u64,
) -> Result<Vec<LeftOver>, Unavailable> {
    let select = concat!(
        "SELECT log_partition, count(), toUnixTimestamp64Milli(max(log_time)) \
         FROM token_usage FINAL ",
        include_str!("sql/above_cursors.sql"),
        "GROUP BY log_partition"
    );
    let select = above(shared.clickhouse.query(select), cursors, first);
    ask_within(BOOK_TIMEOUT, select.fetch_all()).await
}

/// Binds what `above_cursors.sql` asks for.
fn above(statement: Query, cursors: &Cursors, first: u64) -> Query {
    let Cursors { partitions, positions } = cursors;
    statement.param("first", first).param("partitions", partitions).param("positions", positions)
}
