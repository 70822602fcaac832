//! Which topic is the event log.

use std::num::NonZeroU32;

use metering::Unavailable;
use sqlx::Row as _;

use super::Database;

/// The label of this store in `tokenmeter_store_errors_total`.
const STORE: &str = "ledger";

/// A topic that is, or was, the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogGeneration {
    /// Counts up from 0: the high bits of every offset that is stored.
    pub number: u16,
    /// Its name.
    pub topic: String,
    /// Tells it from one that was made anew under its name.
    pub topic_id: String,
    /// Into how many partitions users are divided; fixed as long as the generation lasts.
    pub partitions: NonZeroU32,
}

/// The log that is counted now; `None` before the first `tokenmeter migrate`.
///
/// # Errors
/// [`Unavailable`]: Postgres did not answer.
pub async fn current(database: &Database) -> Result<Option<LogGeneration>, Unavailable> {
    let select = "SELECT number, topic, topic_id, partitions FROM log_generations \
                  ORDER BY number DESC LIMIT 1";
    let row = sqlx::query(select).fetch_optional(database.pool());
    let Some(row) = database.within(STORE, row).await? else { return Ok(None) };
    let damaged = |what: &str| Unavailable::new(STORE, format!("the log's {what} is no number"));
    let partitions = u32::try_from(row.get::<i32, _>(3)).ok().and_then(NonZeroU32::new);
    Ok(Some(LogGeneration {
        number: u16::try_from(row.get::<i16, _>(0)).map_err(|_| damaged("generation"))?,
        topic: row.get(1),
        topic_id: row.get(2),
        partitions: partitions.ok_or_else(|| damaged("partitions"))?,
    }))
}

/// Which generation this topic is, or was; `None` when it never was the event log.
///
/// # Errors
/// [`Unavailable`]: Postgres did not answer.
pub async fn of_topic(database: &Database, topic_id: &str) -> Result<Option<i16>, Unavailable> {
    let select = "SELECT max(number) FROM log_generations WHERE topic_id = $1";
    let number = sqlx::query_scalar(select).bind(topic_id).fetch_one(database.pool());
    database.within(STORE, number).await
}

/// Whether the log of this number is left, or about to be.
///
/// # Errors
/// [`Unavailable`]: Postgres did not answer.
pub async fn is_left(database: &Database, number: u16) -> Result<bool, Unavailable> {
    let select = "SELECT coalesce(bool_or(is_left), false) FROM log_generations WHERE number = $1";
    let is_left = sqlx::query_scalar(select).bind(i32::from(number)).fetch_one(database.pool());
    database.within(STORE, is_left).await
}

/// Says that the log of this number is being left, or that it is not after all.
///
/// # Errors
/// [`Unavailable`]: Postgres did not answer.
pub async fn set_left(database: &Database, number: u16, left: bool) -> Result<(), Unavailable> {
    let update = "UPDATE log_generations SET is_left = $2 WHERE number = $1";
    let update = sqlx::query(update).bind(i32::from(number)).bind(left);
    database.within(STORE, update.execute(database.pool())).await.map(|_| ())
}

/// Notes that this log is counted from now on. Refused unless the one before it is left. The same again
/// changes nothing.
///
/// # Errors
/// [`Unavailable`]: Postgres did not answer, the log before it is not left, or another log has that
/// number.
pub async fn start(database: &Database, log: &LogGeneration) -> Result<(), Unavailable> {
    let unfit = |_| Unavailable::new(STORE, "there were too many logs or partitions");
    let number = i16::try_from(log.number).map_err(unfit)?;
    let partitions = i32::try_from(log.partitions.get()).map_err(unfit)?;
    let insert = "INSERT INTO log_generations (number, topic, topic_id, partitions) \
                  SELECT $1, $2, $3, $4 \
                  WHERE NOT EXISTS (SELECT FROM log_generations WHERE number < $1 AND NOT is_left) \
                  ON CONFLICT (number) DO NOTHING";
    let insert = sqlx::query(insert).bind(number).bind(&log.topic).bind(&log.topic_id);
    database.within(STORE, insert.bind(partitions).execute(database.pool())).await?;
    match current(database).await? {
        Some(found) if found == *log => Ok(()),
        _ => Err(Unavailable::new(
            STORE,
            "another program has just started another log, or goes on with the one so far",
        )),
    }
}
