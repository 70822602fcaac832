//! Records that were set aside, as bytes of the log's codec, in Postgres.

use std::collections::HashSet;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::{
    DeadLetter, DeadLetterReason, DeadLetters, ListedDeadLetter, Offset, Partition,
};
use sqlx::{PgConnection, Row as _};

use super::stored::{STORE, count, partition, partition_number, stored};
use super::{ClusterLedger, Shared};
use crate::record;

/// Letters of one statement: each may hold a whole record.
const ROWS_MAX: usize = 500;

/// Makes erasures wait until this transaction has ended.
pub(super) async fn announce(open: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("LOCK TABLE dead_letters IN ROW EXCLUSIVE MODE").execute(open).await.map(drop)
}

/// Stores letters; those of erased users without metadata.
pub(super) async fn insert(
    open: &mut PgConnection,
    letters: &[(Partition, &[DeadLetter])],
    erased: &HashSet<UserId>,
) -> Result<(), sqlx::Error> {
    let all: Vec<_> = letters
        .iter()
        .flat_map(|(partition, letters)| letters.iter().map(move |letter| (*partition, letter)))
        .collect();
    for rows in all.chunks(ROWS_MAX) {
        let mut partitions = Vec::with_capacity(rows.len());
        let (mut offsets, mut times) = (Vec::new(), Vec::new());
        let (mut reasons, mut details, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, letter) in rows {
            let encoded = |error: Unavailable| sqlx::Error::Encode(error.into());
            let (detail, bytes) = content(&letter.reason, erased);
            partitions.push(partition_number(*partition).map_err(encoded)?);
            offsets.push(stored(letter.offset.number()).map_err(encoded)?);
            times.push(letter.log_time.as_millis());
            reasons.push(letter.reason.code());
            // Postgres keeps no U+0000 in text.
            details.push(detail.replace('\0', "\u{fffd}"));
            values.push(bytes);
        }
        sqlx::query(include_str!("sql/insert_dead_letters.sql"))
            .bind(partitions)
            .bind(offsets)
            .bind(times)
            .bind(reasons)
            .bind(details)
            .bind(values)
            .execute(&mut *open)
            .await?;
    }
    Ok(())
}

/// What the codec said, if it did, and the record's value.
fn content<'a>(reason: &'a DeadLetterReason, erased: &HashSet<UserId>) -> (&'a str, Vec<u8>) {
    match reason {
        DeadLetterReason::Undecodable { bytes, reason } => (reason, bytes.clone()),
        DeadLetterReason::EventIdReused(admitted) => {
            let mut admitted = admitted.clone();
            if erased.contains(&admitted.event.user_id) {
                admitted.event.metadata = None;
            }
            let mut bytes = Vec::new();
            record::encode(&admitted, &mut bytes);
            ("", bytes)
        }
    }
}

/// Erases the metadata in the letters of one user, where the codec of today reads them. Letters that
/// are being stored are waited for.
pub(super) async fn erase_metadata(shared: &Shared, user: UserId) -> Result<(), Unavailable> {
    let erasing = async {
        let mut open = shared.postgres.pool().begin().await?;
        let lock = "LOCK TABLE dead_letters IN SHARE ROW EXCLUSIVE MODE";
        sqlx::query(lock).execute(&mut *open).await?;
        let select = "SELECT log_partition, log_offset, bytes FROM dead_letters \
                      WHERE reason = 'event_id_reused'";
        let rows = sqlx::query(select).fetch_all(&mut *open).await?;
        for row in rows {
            let Ok(mut admitted) = record::decode(row.try_get("bytes")?) else { continue };
            if admitted.event.user_id != user || admitted.event.metadata.take().is_none() {
                continue;
            }
            let mut bytes = Vec::new();
            record::encode(&admitted, &mut bytes);
            let update = "UPDATE dead_letters SET bytes = $3 \
                          WHERE log_partition = $1 AND log_offset = $2";
            sqlx::query(update)
                .bind(row.try_get::<i32, _>("log_partition")?)
                .bind(row.try_get::<i64, _>("log_offset")?)
                .bind(bytes)
                .execute(&mut *open)
                .await?;
        }
        open.commit().await
    };
    shared.postgres.within(STORE, erasing).await
}

#[async_trait]
impl DeadLetters for ClusterLedger {
    async fn list(&self) -> Result<Vec<ListedDeadLetter>, Unavailable> {
        let listing = async {
            let select = "SELECT log_partition, log_offset, log_time, reason, detail, bytes, \
                          replayed_at FROM dead_letters ORDER BY log_partition, log_offset";
            let rows = sqlx::query(select).fetch_all(self.shared.postgres.pool()).await?;
            let letters = rows.iter().map(|row| {
                let bytes: &[u8] = row.try_get("bytes")?;
                let replayed_at: Option<i64> = row.try_get("replayed_at")?;
                Ok(ListedDeadLetter {
                    partition: partition(row)?,
                    offset: Offset::new(count(row, "log_offset")?),
                    log_time: Timestamp::from_millis(row.try_get("log_time")?),
                    reason: row.try_get("reason")?,
                    detail: row.try_get("detail")?,
                    event: record::decode(bytes).ok().map(Box::new),
                    bytes: bytes.len(),
                    replayed_at: replayed_at.map(Timestamp::from_millis),
                })
            });
            letters.collect()
        };
        self.shared.postgres.within(STORE, listing).await
    }

    async fn replayed(
        &self,
        partition: Partition,
        offset: Offset,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        let (partition, offset) = (partition_number(partition)?, stored(offset.number())?);
        let update = "UPDATE dead_letters SET replayed_at = $3 \
                      WHERE log_partition = $1 AND log_offset = $2";
        let update = sqlx::query(update).bind(partition).bind(offset).bind(now.as_millis());
        let noting = async { update.execute(self.shared.postgres.pool()).await.map(drop) };
        self.shared.postgres.within(STORE, noting).await
    }
}
