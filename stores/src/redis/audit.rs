//! Everything the counter knows, for reconciliation.

use std::collections::{BTreeMap, BTreeSet};

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{CounterUser, InFlight, UserTotals};
use metering::time::Period;
use metering::usage::{IdDigest, Offset, Partition};
use redis::Value;

use super::link::Link;
use super::wire::{self, Reader, StoredEpoch, garbled};
use super::{RedisQuotaCounter, unavailable};

/// Keys looked at in one step: others are served in between.
const STEP: usize = 1000;

impl RedisQuotaCounter {
    /// See `QuotaCounter::audit`. Each month is read whole, but not all at the same moment.
    pub(super) async fn read_all(&self) -> Result<Vec<CounterUser>, Unavailable> {
        let link = self.shared.server.link().await?;
        let mut epochs = BTreeMap::new();
        for number in 0..self.shared.settings.partitions.get() {
            let partition = Partition::new(number);
            epochs.insert(number, self.open_epoch(&link, partition).await?);
        }
        let mut found = Vec::new();
        for key in self.month_keys(&link).await? {
            let Some((number, user_id, period)) = self.read_key(&key) else { continue };
            let Some(epoch) = epochs.get(&number) else { continue };
            let fields = self.shared.server.ask(&link, redis::cmd("HGETALL").arg(&key)).await?;
            found.extend(read_month(fields, epoch, user_id, period)?);
        }
        Ok(found)
    }

    async fn open_epoch(
        &self,
        link: &Link,
        partition: Partition,
    ) -> Result<StoredEpoch, Unavailable> {
        let raw = self.shared.server.get(link, &self.shared.key(partition)).await?;
        let epoch = raw.map(|raw| wire::stored_epoch(&raw)).transpose()?;
        let serving =
            |one: &StoredEpoch| one.open && one.incarnation == link.incarnation.as_bytes();
        epoch.filter(serving).ok_or_else(|| unavailable("a partition is not open"))
    }

    async fn month_keys(&self, link: &Link) -> Result<BTreeSet<Vec<u8>>, Unavailable> {
        let pattern = format!("{}{{p*}}m*", escaped(&self.shared.settings.prefix));
        let (mut keys, mut cursor) = (BTreeSet::new(), b"0".to_vec());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
            let Value::Array(mut reply) = self.shared.server.ask(link, &scan).await? else {
                return Err(garbled());
            };
            let (Some(page), Some(Value::BulkString(next))) = (reply.pop(), reply.pop()) else {
                return Err(garbled());
            };
            keys.extend(wire::strings(page)?);
            if next == b"0" {
                return Ok(keys);
            }
            cursor = next;
        }
    }

    /// Partition, user and period of a month's key.
    fn read_key(&self, key: &[u8]) -> Option<(u32, UserId, Period)> {
        let rest = key.strip_prefix(self.shared.settings.prefix.as_bytes())?;
        let rest = rest.strip_prefix(b"{p")?;
        let end = rest.iter().position(|byte| *byte == b'}')?;
        let number = str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
        let (user, period) = rest.get(end + 1..)?.strip_prefix(b"m")?.split_first_chunk::<16>()?;
        let period = i32::from_le_bytes(period.try_into().ok()?);
        Some((number, UserId::from_bytes(*user), Period::from_number(period)))
    }
}

/// `None`: it is gone by now, or left over from an earlier epoch.
fn read_month(
    fields: Value,
    epoch: &StoredEpoch,
    user_id: UserId,
    period: Period,
) -> Result<Option<CounterUser>, Unavailable> {
    let fields = match fields {
        Value::Map(pairs) => Value::Array(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect()),
        fields => fields,
    };
    let fields = wire::strings(fields)?;
    let (mut sums, mut in_flight) = (None, Vec::new());
    for pair in fields.chunks_exact(2) {
        match <[u8; 16]>::try_from(pair[0].as_slice()) {
            Ok(digest) => in_flight.push(read_entry(IdDigest(digest), &pair[1])?),
            Err(_) if pair[0] == b"s" => sums = Some(&pair[1]),
            Err(_) => {}
        }
    }
    let Some(sums) = sums else { return Ok(None) };
    let mut reader = Reader(sums);
    if reader.u64()? != epoch.nonce {
        return Ok(None);
    }
    let cursor = Offset::new(reader.u64()?);
    let ledger = UserTotals { user_id, period, totals: reader.totals()? };
    Ok(Some(CounterUser { ledger, cursor, in_flight }))
}

fn read_entry(id_digest: IdDigest, raw: &[u8]) -> Result<InFlight, Unavailable> {
    let mut reader = Reader(raw);
    let kind = reader.u8()?;
    reader.u64()?;
    let (tokens, admitted_at) = (reader.u64()?, reader.time()?);
    reader.u8()?;
    let last = reader.time()?;
    let hold_expires_at = (kind >= 16).then_some(last);
    Ok(InFlight { id_digest, tokens, admitted_at, hold_expires_at })
}

/// What `MATCH` takes literally.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for one in text.chars() {
        if "*?[]\\^".contains(one) {
            out.push('\\');
        }
        out.push(one);
    }
    out
}
