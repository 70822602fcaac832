//! Rebuilding summaries and statistics from the events.

use metering::Unavailable;
use sqlx::PgConnection;

use super::books::{BOOK_TIMEOUT, Cursors, patient};
use super::comparing::{Month, Months};
use super::stored::{Id, stored, unavailable};
use super::{Shared, ask_within};

/// Rows of statistics written at a time.
const ROWS_MAX: usize = 10_000;

/// What becomes of one table: a name, and the statement that fills what replaces it.
const REBUILT: [[&str; 5]; 2] = [
    [
        "DROP TABLE IF EXISTS token_usage_summary_rebuilt SYNC",
        "CREATE TABLE token_usage_summary_rebuilt AS token_usage_summary",
        include_str!("sql/rebuild_daily.sql"),
        "EXCHANGE TABLES token_usage_summary AND token_usage_summary_rebuilt",
        "DROP TABLE token_usage_summary_rebuilt SYNC",
    ],
    [
        "DROP TABLE IF EXISTS token_usage_hourly_rebuilt SYNC",
        "CREATE TABLE token_usage_hourly_rebuilt AS token_usage_hourly",
        include_str!("sql/rebuild_hourly.sql"),
        "EXCHANGE TABLES token_usage_hourly AND token_usage_hourly_rebuilt",
        "DROP TABLE token_usage_hourly_rebuilt SYNC",
    ],
];

/// See `Books::repair`. Cursors stand still meanwhile: commits wait, or fail and take over anew. Owners
/// in other processes must be stopped: they know the totals of rows that are replaced here.
pub(super) async fn repair(shared: &Shared) -> Result<(), Unavailable> {
    let mut open = patient(shared, "SELECT 1").await?;
    rebuild(shared, &mut open).await?;
    open.commit().await.map_err(unavailable)
}

/// The same within a transaction.
pub(super) async fn rebuild(shared: &Shared, open: &mut PgConnection) -> Result<(), Unavailable> {
    let cursors = Cursors::read(open, true).await.map_err(unavailable)?;
    for statements in REBUILT {
        for statement in statements {
            let statement = shared
                .clickhouse
                .change(statement)
                .param("partitions", &cursors.partitions)
                .param("positions", &cursors.positions);
            ask_within(BOOK_TIMEOUT, statement.execute()).await?;
        }
    }
    shared.partitions.forget_totals();
    let delete = "DELETE FROM usage_statistics";
    sqlx::query(delete).execute(&mut *open).await.map_err(unavailable)?;
    let mut months = Months::read(shared, &cursors)?;
    let mut rows = Vec::new();
    loop {
        let next = months.next().await?;
        let ended = next.is_none();
        rows.extend(next);
        if rows.len() >= ROWS_MAX || ended {
            insert(open, &rows).await?;
            rows.clear();
        }
        if ended {
            return Ok(());
        }
    }
}

async fn insert(open: &mut PgConnection, rows: &[Month]) -> Result<(), Unavailable> {
    let column = |place: usize| -> Result<Vec<i64>, Unavailable> {
        rows.iter().map(|month| stored(month.sums[place])).collect()
    };
    let users: Vec<_> = rows.iter().map(|month| Id(month.user)).collect();
    let periods: Vec<_> = rows.iter().map(|month| month.period).collect();
    let insert = sqlx::query(include_str!("sql/add_statistics.sql"))
        .bind(users)
        .bind(periods)
        .bind(column(0)?)
        .bind(column(1)?)
        .bind(column(2)?)
        .bind(column(3)?);
    insert.execute(open).await.map(drop).map_err(unavailable)
}
