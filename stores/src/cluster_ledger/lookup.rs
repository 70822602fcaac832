//! What the door asks: which events are counted, and the totals of users.

use std::collections::HashMap;

use clickhouse::Row;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::{Period, Timestamp};
use metering::usage::{ContentDigest, IdDigest, Offset, Partition, Seen, TotalsAt};
use serde::Deserialize;
use sqlx::Row as _;

use super::Shared;
use super::applying::read_totals;
use super::stored::{
    Id, LITERAL_BYTES, STORE, count, literals, partition, partition_number, unavailable,
};

/// Ids of one question: the server takes 256 KiB for a statement (`max_query_size`).
const IDS_MAX: usize = 240 * 1024 / LITERAL_BYTES;

#[derive(Row, Deserialize)]
struct FoundRow {
    id_digest: u128,
    log_offset: u64,
    log_partition: u32,
    content_digest: u64,
    log_time: i64,
}

/// A counted event, found by its id.
pub(super) struct Found {
    pub(super) offset: Offset,
    pub(super) seen: Seen,
}

/// The newest count of each id among those that `is_counted` says are.
pub(super) async fn find(
    shared: &Shared,
    ids: &[IdDigest],
    is_counted: impl Fn(Partition, Offset) -> bool,
) -> Result<HashMap<IdDigest, Found>, Unavailable> {
    let mut newest: HashMap<IdDigest, Found> = HashMap::new();
    for ids in ids.chunks(IDS_MAX) {
        metrics::counter!("tokenmeter_id_index_lookups_total").increment(ids.len() as u64);
        let select = include_str!("sql/find_ids.sql").replace("{ids}", &literals(ids));
        let found = shared.clickhouse.query(&select).fetch_all::<FoundRow>();
        for row in shared.ask(found).await? {
            let offset = Offset::new(row.log_offset);
            if !is_counted(Partition::new(row.log_partition), offset) {
                continue;
            }
            let id = IdDigest(row.id_digest.to_le_bytes());
            let content = ContentDigest(row.content_digest.to_le_bytes());
            let log_time = Timestamp::from_millis(row.log_time);
            let found = Found { offset, seen: Seen { content, log_time } };
            if newest.get(&id).is_none_or(|newest| newest.offset <= offset) {
                newest.insert(id, found);
            }
        }
    }
    Ok(newest)
}

/// Where every partition stands.
pub(super) async fn positions(shared: &Shared) -> Result<HashMap<Partition, Offset>, Unavailable> {
    let reading = async {
        let select = "SELECT log_partition, position FROM cursors";
        let rows = sqlx::query(select).fetch_all(shared.postgres.pool()).await?;
        let positions =
            rows.iter().map(|row| Ok((partition(row)?, Offset::new(count(row, "position")?))));
        positions.collect()
    };
    shared.postgres.within(STORE, reading).await
}

/// See `LedgerLookup::totals`. One statement is one snapshot.
pub(super) async fn totals(
    shared: &Shared,
    users: &[(UserId, Period)],
) -> Result<Vec<TotalsAt>, Unavailable> {
    let ids: Vec<_> = users.iter().map(|(user, _)| Id(*user)).collect();
    let periods: Vec<_> = users.iter().map(|(_, period)| period.number()).collect();
    let partitions = users
        .iter()
        .map(|(user, _)| partition_number(Partition::of(*user, shared.settings.partitions)));
    let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
    let reading = async {
        let select = sqlx::query(include_str!("sql/totals.sql"));
        let select = select.bind(ids).bind(periods).bind(partitions);
        let rows = select.fetch_all(shared.postgres.pool()).await?;
        let totals = rows.iter().map(|row| {
            let cursor = row.try_get::<Option<i64>, _>("position")?;
            let cursor = cursor.and_then(|position| u64::try_from(position).ok());
            let cursor = cursor.map_or_else(Offset::default, Offset::new);
            Ok(TotalsAt { totals: read_totals(row)?, cursor })
        });
        totals.collect::<Result<Vec<_>, _>>()
    };
    let totals = shared.postgres.within(STORE, reading).await?;
    let all = totals.len() == users.len();
    all.then_some(totals).ok_or_else(|| unavailable("Postgres answered for other users"))
}
