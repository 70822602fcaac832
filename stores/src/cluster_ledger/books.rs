//! The figures that reconciliation compares. ClickHouse is always read after the cursors, and only
//! below them: what lies there changes no more.

use std::time::Duration;

use async_trait::async_trait;
use clickhouse::Row;
use metering::Unavailable;
use metering::usage::{
    Books, Difference, Offset, OffsetRange, Partition, PartitionBook, RawBook, Tallies,
};
use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{Acquire as _, PgConnection, Postgres, Transaction};

use super::stored::{STORE, count, partition};
use super::{ClusterLedger, Shared, ask_within, comparing, repair};

/// A comparison reads every event. A server that needs longer has hung.
pub(super) const BOOK_TIMEOUT: Duration = Duration::from_secs(15 * 60);

#[async_trait]
impl Books for ClusterLedger {
    async fn partitions(&self) -> Result<Vec<PartitionBook>, Unavailable> {
        let reading = async {
            let rows = sqlx::query(include_str!("sql/partition_books.sql"));
            let rows = rows.fetch_all(self.shared.postgres.pool()).await?;
            rows.iter().map(partition_book).collect()
        };
        self.shared.postgres.within(STORE, reading).await
    }

    async fn raw(&self) -> Result<RawBook, Unavailable> {
        raw(&self.shared).await
    }

    async fn summaries(&self) -> Result<(u64, Vec<Difference>), Unavailable> {
        comparing::summaries(&self.shared).await
    }

    async fn statistics(&self) -> Result<(u64, Vec<Difference>), Unavailable> {
        comparing::statistics(&self.shared).await
    }

    async fn repair(&self) -> Result<(), Unavailable> {
        repair::repair(&self.shared).await
    }
}

fn partition_book(row: &PgRow) -> Result<PartitionBook, sqlx::Error> {
    let (start, end) = (count(row, "start_offset")?, count(row, "position")?);
    Ok(PartitionBook {
        partition: partition(row)?,
        range: OffsetRange { start: Offset::new(start), end: Offset::new(end) },
        tallies: Tallies {
            counted: count(row, "counted")?,
            duplicates: count(row, "duplicates")?,
            dead_letters: count(row, "dead_letters")?,
            void: count(row, "void")?,
            ticks: count(row, "ticks")?,
        },
    })
}

/// Where the partitions stand, as ClickHouse is told: positions[i] of partitions[i].
pub(super) struct Cursors {
    pub(super) partitions: Vec<u32>,
    pub(super) positions: Vec<u64>,
}

impl Cursors {
    /// Those that stand below an offset.
    pub(super) fn below(self, offset: u64) -> Self {
        let all = self.partitions.into_iter().zip(self.positions);
        let (partitions, positions) = all.filter(|(_, position)| *position < offset).unzip();
        Self { partitions, positions }
    }

    /// In the order of their numbers; `lock` keeps them from moving until the transaction ends.
    pub(super) async fn read(open: &mut PgConnection, lock: bool) -> Result<Self, sqlx::Error> {
        let select = if lock {
            "SELECT log_partition, position FROM cursors ORDER BY log_partition FOR UPDATE"
        } else {
            "SELECT log_partition, position FROM cursors ORDER BY log_partition"
        };
        let mut cursors = Self { partitions: Vec::new(), positions: Vec::new() };
        for row in sqlx::query(select).fetch_all(open).await? {
            let partition: Partition = partition(&row)?;
            cursors.partitions.push(partition.number());
            cursors.positions.push(count(&row, "position")?);
        }
        Ok(cursors)
    }
}

/// A transaction that may wait for ClickHouse: longer than one statement of it may take.
pub(super) async fn patient(
    shared: &Shared,
    modes: &'static str,
) -> Result<Transaction<'static, Postgres>, Unavailable> {
    let beginning = async {
        let mut open = shared.postgres.pool().begin().await?;
        let connection = open.acquire().await?;
        sqlx::raw_sql(modes).execute(&mut *connection).await?;
        let patience =
            "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
        sqlx::raw_sql(patience).execute(connection).await?;
        Ok(open)
    };
    shared.postgres.within(STORE, beginning).await
}

/// All statements of the transaction see the same instant.
pub(super) const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

#[derive(Row, Deserialize)]
struct RawRow {
    events: u64,
    tokens: u64,
}

async fn raw(shared: &Shared) -> Result<RawBook, Unavailable> {
    let mut open = patient(shared, SNAPSHOT).await?;
    let reading = async {
        let cursors = Cursors::read(&mut open, false).await?;
        let select = sqlx::query(include_str!("sql/statistics_sums.sql"));
        let row = select.fetch_one(&mut *open).await?;
        let sums = (count(&row, "tokens")?, count(&row, "requests")?);
        open.commit().await?;
        Ok((cursors, sums))
    };
    let (cursors, (statistics_tokens, statistics_requests)) =
        shared.postgres.within(STORE, reading).await?;
    let select = shared
        .clickhouse
        .query(include_str!("sql/raw_book.sql"))
        .param("partitions", cursors.partitions)
        .param("positions", cursors.positions);
    let RawRow { events, tokens } = ask_within(BOOK_TIMEOUT, select.fetch_one()).await?;
    Ok(RawBook { events, tokens, statistics_tokens, statistics_requests })
}
