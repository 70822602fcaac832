//! How a partition's owner opens it, keeps it up to date and closes it.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::quota::{ADMISSION_WINDOW, Epoch, MARGIN, Synced, Totals};
use metering::time::Timestamp;
use metering::usage::{IdDigest, Offset, Partition};
use redis::Value;

use super::library::Function;
use super::wire::{self, Status};
use super::{RedisQuotaCounter, unavailable};

/// What makes the wait of a rebuild longer than its bounds, and not just as long.
const BEYOND: Duration = Duration::from_millis(100);

impl RedisQuotaCounter {
    /// See `QuotaCounter::close`: closed in Redis first, then under its new name in the feed.
    pub(super) async fn close_anew(&self, partition: Partition) -> Result<Duration, Unavailable> {
        let nonce: u64 = rand::random();
        let link = self.shared.server.link().await?;
        let arguments = vec![nonce.to_le_bytes().to_vec()];
        let call = self.shared.call(Function::Close, partition, arguments);
        self.confirmed(&link, call).await?;
        let epoch = Epoch { incarnation: link.incarnation.to_string(), nonce };
        let first = self.feed.announce(partition, &epoch).await?;
        self.names().insert(partition, nonce);
        if first {
            // Nothing was let in before: only what is let in under an announced name is published.
            return Ok(Duration::ZERO);
        }
        let settings = &self.shared.settings;
        // The last admission under the old name, the slowest process that passes it on, and how
        // far clocks and log time may be off.
        let bounds = [settings.feed_delay, MARGIN, settings.clock_bound, BEYOND];
        Ok(bounds.into_iter().fold(ADMISSION_WINDOW, Duration::saturating_add))
    }

    /// See `QuotaCounter::open`.
    pub(super) async fn open_closed(
        &self,
        partition: Partition,
        cursor: Offset,
        watermark: Timestamp,
    ) -> Result<bool, Unavailable> {
        let Some(nonce) = self.name_of(partition) else { return Ok(false) };
        let arguments = vec![
            nonce.to_le_bytes().to_vec(),
            cursor.number().to_le_bytes().to_vec(),
            watermark.as_millis().to_le_bytes().to_vec(),
        ];
        let link = self.shared.server.link().await?;
        let call = self.shared.call(Function::Open, partition, arguments);
        self.confirmed(&link, call).await
    }

    /// See `QuotaCounter::take_over`: adopts the name under which the partition is open.
    pub(super) async fn adopt(&self, partition: Partition) -> Result<Option<Offset>, Unavailable> {
        let link = self.shared.server.link().await?;
        let key = self.shared.key(partition);
        let Some(raw) = self.shared.server.get(&link, &key).await? else { return Ok(None) };
        let epoch = wire::stored_epoch(&raw)?;
        if epoch.incarnation != link.incarnation.as_bytes() {
            self.shared.server.suspect(&link).await;
            return Ok(None);
        }
        self.feed.look(Instant::now()).await?;
        if !epoch.open || self.feed.nonce(partition) != Some(epoch.nonce) {
            return Ok(None);
        }
        self.names().insert(partition, epoch.nonce);
        Ok(Some(epoch.cursor))
    }

    /// See `QuotaCounter::sync`: the months in calls that each check the name, and only when all
    /// of them have been confirmed the cursor.
    pub(super) async fn take_over_totals(&self, synced: &Synced) -> Result<bool, Unavailable> {
        let partition = synced.partition;
        let Some(nonce) = self.name_of(partition) else { return Ok(false) };
        if self.feed.nonce(partition).is_none() {
            self.feed.look(Instant::now()).await?;
        }
        if self.feed.nonce(partition) != Some(nonce) {
            return Ok(false);
        }
        let nonce = nonce.to_le_bytes();
        let calls = self.settle_calls(partition, &nonce, &months(synced));
        if !calls.is_empty() {
            for reply in self.shared.run(&calls).await? {
                if !matches!(reply?.status, Status::Served(_)) {
                    return Ok(false);
                }
            }
        }
        let cursor = synced.cursor.number().to_le_bytes().to_vec();
        let watermark = synced.watermark.as_millis().to_le_bytes().to_vec();
        let arguments = vec![nonce.to_vec(), cursor, watermark];
        let reply =
            self.shared.run_one(self.shared.call(Function::Advance, partition, arguments)).await?;
        Ok(matches!(reply.status, Status::Served(_)))
    }

    async fn confirmed(
        &self,
        link: &super::link::Link,
        call: super::link::Call,
    ) -> Result<bool, Unavailable> {
        let answer = self.shared.server.run(link, &[call]).await.pop();
        let strings = wire::strings(answer.unwrap_or_else(|| Ok(Value::Nil))?)?;
        match strings.first().map(Vec::as_slice) {
            Some(b"1") => Ok(true),
            Some(b"0") => Ok(false),
            _ => Err(unavailable("neither yes nor no")),
        }
    }

    /// Whether each partition that this process has closed, opened or taken over still has the name
    /// under which it did so: nobody else has closed it since.
    ///
    /// # Errors
    /// [`Unavailable`]: nobody tells which names are in force.
    pub async fn names_hold(&self) -> Result<bool, Unavailable> {
        self.feed.look(Instant::now()).await?;
        let names = self.names();
        Ok(names.iter().all(|(partition, nonce)| self.feed.nonce(*partition) == Some(*nonce)))
    }

    fn name_of(&self, partition: Partition) -> Option<u64> {
        self.names().get(&partition).copied()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Partition, u64>> {
        // Nothing in here can be left half done.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a sync brings, month by month.
fn months(synced: &Synced) -> Vec<Vec<u8>> {
    type Month<'a> = (Option<&'a Totals>, Vec<IdDigest>);
    let mut months: hashbrown::HashMap<_, Month<'_>> = hashbrown::HashMap::new();
    for new in &synced.totals {
        months.entry((new.user_id, new.period)).or_default().0 = Some(&new.totals);
    }
    for one in &synced.settled {
        months.entry((one.user_id, one.period)).or_default().1.push(one.id_digest);
    }
    let packed = months.into_iter().flat_map(|((user, period), (totals, ids))| {
        let totals = totals.map(|totals| (totals, synced.cursor));
        super::counter::with_settled(&wire::settled_month(user, period, totals), ids)
    });
    packed.collect()
}
