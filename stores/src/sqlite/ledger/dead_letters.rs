//! Records that were set aside, as bytes of the log's codec.

use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::{DeadLetterReason, ListedDeadLetter, Offset, Partition};
use rusqlite::{Connection, params};

use super::row::{count, stored};
use crate::record;

/// What the codec said, if it did, and the record's value; without metadata if its user is erased.
pub(super) fn content(
    reason: &DeadLetterReason,
    mut is_erased: impl FnMut(UserId) -> rusqlite::Result<bool>,
) -> rusqlite::Result<(&str, Vec<u8>)> {
    match reason {
        DeadLetterReason::Undecodable { bytes, reason } => Ok((reason, bytes.clone())),
        DeadLetterReason::EventIdReused(admitted) => {
            let mut admitted = admitted.clone();
            if admitted.event.metadata.is_some() && is_erased(admitted.event.user_id)? {
                admitted.event.metadata = None;
            }
            let mut bytes = Vec::new();
            record::encode(&admitted, &mut bytes);
            Ok(("", bytes))
        }
    }
}

/// See `DeadLetters::list`.
pub(super) fn list(open: &Connection) -> rusqlite::Result<Vec<ListedDeadLetter>> {
    open.prepare_cached(
        "SELECT partition, offset, log_time, reason, detail, bytes, replayed_at \
         FROM dead_letters ORDER BY partition, offset",
    )?
    .query_map([], |row| {
        let bytes = row.get_ref(5)?.as_blob()?;
        Ok(ListedDeadLetter {
            partition: Partition::new(row.get(0)?),
            offset: Offset::new(count(row, 1)?),
            log_time: Timestamp::from_millis(row.get(2)?),
            reason: row.get(3)?,
            detail: row.get(4)?,
            event: record::decode(bytes).ok().map(Box::new),
            bytes: bytes.len(),
            replayed_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
        })
    })?
    .collect()
}

/// See `DeadLetters::replayed`. A letter that is not there is passed over.
pub(super) fn replayed(
    open: &Connection,
    partition: Partition,
    offset: Offset,
    now: Timestamp,
) -> rusqlite::Result<()> {
    open.execute(
        "UPDATE dead_letters SET replayed_at = ?3 WHERE partition = ?1 AND offset = ?2",
        params![partition.number(), stored(offset.number())?, now.as_millis()],
    )
    .map(drop)
}

/// Erases the metadata in the letters of one user, where the codec of today reads them.
pub(super) fn erase_metadata(open: &mut Connection, user: UserId) -> rusqlite::Result<()> {
    let erasing = open.transaction()?;
    let mut select = erasing.prepare("SELECT partition, offset, bytes FROM dead_letters")?;
    let mut rows = select.query([])?;
    let mut erased = Vec::new();
    while let Some(row) = rows.next()? {
        if let Ok(mut admitted) = record::decode(row.get_ref(2)?.as_blob()?)
            && admitted.event.user_id == user
            && admitted.event.metadata.take().is_some()
        {
            let mut bytes = Vec::new();
            record::encode(&admitted, &mut bytes);
            erased.push((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?, bytes));
        }
    }
    drop(rows);
    drop(select);
    for letter in erased {
        let update = "UPDATE dead_letters SET bytes = ?3 WHERE partition = ?1 AND offset = ?2";
        erasing.execute(update, letter)?;
    }
    erasing.commit()
}
