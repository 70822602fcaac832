use std::collections::BTreeMap;

use async_trait::async_trait;
use metering::Unavailable;
use metering::quota::{Epoch, Epochs};
use metering::usage::Partition;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::values::damaged;
use super::{Database, log_generations};

/// The names of the partitions' counters, where they outlive every counter.
#[derive(Clone, Debug)]
pub struct PostgresEpochs {
    database: Database,
    generation: u16,
}

impl PostgresEpochs {
    /// Of the log of this generation, on a database whose schema was brought up to date.
    pub fn new(database: Database, generation: u16) -> Self {
        Self { database, generation }
    }
}

#[async_trait]
impl Epochs for PostgresEpochs {
    async fn announce(&self, partition: Partition, epoch: &Epoch) -> Result<bool, Unavailable> {
        let number = i32::try_from(partition.number())
            .map_err(|_| Unavailable::new("epochs", "the partition's number is too large"))?;
        let announce = sqlx::query_scalar(include_str!("announce_epoch.sql"))
            .bind(number)
            .bind(epoch.incarnation.as_str())
            .bind(epoch.nonce.cast_signed());
        self.database.within("epochs", announce.fetch_one(self.database.pool())).await
    }

    async fn announced(&self) -> Result<BTreeMap<Partition, Epoch>, Unavailable> {
        let all = sqlx::query("SELECT log_partition, incarnation, nonce FROM epochs");
        let all = all.try_map(epoch).fetch_all(self.database.pool());
        Ok(self.database.within("epochs", all).await?.into_iter().collect())
    }

    async fn log_is_left(&self) -> Result<bool, Unavailable> {
        log_generations::is_left(&self.database, self.generation).await
    }
}

fn epoch(row: PgRow) -> Result<(Partition, Epoch), sqlx::Error> {
    let number: i32 = row.try_get("log_partition")?;
    let number =
        u32::try_from(number).map_err(|_| damaged(format!("log_partition holds {number}")))?;
    let nonce = row.try_get::<i64, _>("nonce")?.cast_unsigned();
    Ok((Partition::new(number), Epoch { incarnation: row.try_get("incarnation")?, nonce }))
}
