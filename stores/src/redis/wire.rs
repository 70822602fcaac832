//! What is said to the functions and what they answer: packed little-endian records, whose layouts
//! stand at the head of each Lua file.

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{
    Admission, Grant, Held, Hold, HoldOutcome, OverLimit, PlanName, Refused, Standing, Terms, Tier,
    Totals, Trust, Verdict,
};
use metering::time::{Period, Timestamp};
use metering::usage::{Flags, IdDigest, Offset, Partition};
use redis::Value;

use super::unavailable;

/// Above this, doubles leave numbers out. Nobody has as many requests.
const COUNT_MAX: u64 = 1 << 53;

const TERMS: u8 = 1;
const GONE: u8 = 2;
const VERDICT_BYTES: usize = 42;

/// An epoch as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredEpoch {
    pub(super) open: bool,
    pub(super) nonce: u64,
    pub(super) cursor: Offset,
    pub(super) incarnation: Vec<u8>,
}

/// The epoch that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) nonce: u64,
    pub(super) cursor: Offset,
    pub(super) admitted_at: Timestamp,
}

/// Whether a function did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Served(Served),
    NotOpen,
    OtherIncarnation,
    OtherNonce,
}

/// An answer, or what must be read before there is one.
#[derive(Clone, Debug)]
pub(super) enum Told<T> {
    Answer(T),
    Undecided,
    Missing { terms: bool, totals: bool },
}

pub(super) fn epoch_key(prefix: &str, partition: Partition) -> String {
    format!("{prefix}{{p{}}}e", partition.number())
}

pub(super) fn of_user(user: UserId, period: Period) -> Vec<u8> {
    let mut out = user.as_bytes().to_vec();
    out.extend(period.number().to_le_bytes());
    out
}

pub(super) fn event(asked: &Admission) -> Vec<u8> {
    let mut out = Vec::with_capacity(55);
    out.extend(asked.id_digest.0);
    out.extend(asked.content_digest.0);
    out.extend(asked.tokens.to_le_bytes());
    out.push(asked.request_type.number());
    out.push(asked.tier.0);
    let service = u8::from(asked.trust == Trust::Service);
    let barred = u8::from(asked.barred) << 1;
    out.push(service | barred | u8::from(asked.settles.is_some()) << 2);
    out.extend(asked.period.number().to_le_bytes());
    out.extend(asked.settles.unwrap_or(IdDigest([0; 16])).0);
    out
}

pub(super) fn hold(asked: &Hold) -> Vec<u8> {
    let mut out = asked.user_id.as_bytes().to_vec();
    out.extend(asked.id_digest.0);
    out.extend(asked.content_digest.0);
    out.extend(asked.tokens.to_le_bytes());
    out.extend([asked.request_type.number(), asked.tier.0]);
    out.extend(asked.period.number().to_le_bytes());
    out.extend(asked.expires_at.as_millis().to_le_bytes());
    out
}

/// `None`: the user is no more.
pub(super) fn terms(user: UserId, terms: Option<&Terms>) -> Vec<u8> {
    let mut out = vec![b'T'];
    out.extend(user.as_bytes());
    let Some(terms) = terms else {
        out.push(GONE);
        return out;
    };
    out.push(TERMS);
    out.extend(terms.version.to_le_bytes());
    out.extend(terms.valid_until.map_or(i64::MAX, Timestamp::as_millis).to_le_bytes());
    out.push(terms.tier.0);
    out.push(u8::from(terms.over_limit == OverLimit::Record));
    let mut limits = u8::from(terms.token_limit.is_some());
    for (place, limit) in terms.request_limits.iter().enumerate() {
        limits |= u8::from(limit.is_some()) << (place + 1);
    }
    out.push(limits);
    out.extend(terms.token_limit.unwrap_or_default().to_le_bytes());
    for limit in terms.request_limits {
        out.extend(limit.unwrap_or_default().to_le_bytes());
    }
    out.extend(terms.plan.as_str().as_bytes());
    out
}

pub(super) fn totals_seed(
    user: UserId,
    period: Period,
    totals: &Totals,
    cursor: Offset,
) -> Vec<u8> {
    let mut out = vec![b'L'];
    out.extend(of_user(user, period));
    out.extend(cursor.number().to_le_bytes());
    put_totals(&mut out, totals);
    out
}

/// A month of `settle`; the digests of what leaves follow.
pub(super) fn settled_month(
    user: UserId,
    period: Period,
    totals: Option<(&Totals, Offset)>,
) -> Vec<u8> {
    let mut out = of_user(user, period);
    out.push(u8::from(totals.is_some()));
    let nothing = Totals::default();
    let (totals, cursor) = totals.unwrap_or((&nothing, Offset::new(0)));
    out.extend(cursor.number().to_le_bytes());
    put_totals(&mut out, totals);
    out
}

fn put_totals(out: &mut Vec<u8>, totals: &Totals) {
    out.extend(totals.tokens.to_le_bytes());
    for count in totals.requests {
        out.extend(count.min(COUNT_MAX).to_le_bytes());
    }
}

/// The strings of a reply.
pub(super) fn strings(reply: Value) -> Result<Vec<Vec<u8>>, Unavailable> {
    let Value::Array(values) = reply else { return Err(garbled()) };
    let string = |value| match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(garbled()),
    };
    values.into_iter().map(string).collect()
}

pub(super) fn status(head: Option<&Vec<u8>>) -> Result<Status, Unavailable> {
    let mut reader = Reader(head.map_or(&[], Vec::as_slice));
    match reader.u8()? {
        0 => {
            let (nonce, cursor) = (reader.u64()?, Offset::new(reader.u64()?));
            Ok(Status::Served(Served { nonce, cursor, admitted_at: reader.time()? }))
        }
        1 => Ok(Status::NotOpen),
        2 => Ok(Status::OtherIncarnation),
        3 => Ok(Status::OtherNonce),
        _ => Err(garbled()),
    }
}

pub(super) fn stored_epoch(raw: &[u8]) -> Result<StoredEpoch, Unavailable> {
    let mut reader = Reader(raw);
    let (open, nonce) = (reader.u8()? == 1, reader.u64()?);
    let cursor = Offset::new(reader.u64()?);
    reader.time()?;
    Ok(StoredEpoch { open, nonce, cursor, incarnation: reader.0.to_vec() })
}

/// One user's verdicts, in the order asked.
pub(super) fn verdicts(
    raw: &[u8],
    count: usize,
    served: &Served,
) -> Result<Vec<Told<Verdict>>, Unavailable> {
    let (verdicts, terms) = raw.split_at_checked(count * VERDICT_BYTES).ok_or_else(garbled)?;
    let plan = PlanTerms::read(terms)?;
    verdicts.chunks(VERDICT_BYTES).map(|one| verdict(one, plan.as_ref(), served)).collect()
}

fn verdict(
    raw: &[u8],
    plan: Option<&PlanTerms>,
    served: &Served,
) -> Result<Told<Verdict>, Unavailable> {
    let mut reader = Reader(raw);
    let (code, flags) = (reader.u8()?, Flags::from_bits(reader.u8()?));
    let (over_hold, used) = (reader.u64()?, reader.totals()?);
    if let Some(missing) = missing(code) {
        return Ok(missing);
    }
    let standing = || plan.map(|plan| plan.standing(used)).ok_or_else(garbled);
    let grant = || {
        let Served { admitted_at, cursor, .. } = *served;
        Ok(Grant { admitted_at, cursor, flags, over_hold, standing: standing()? })
    };
    Ok(Told::Answer(match code {
        1 => Verdict::Granted(grant()?),
        2 => Verdict::Repeated(grant()?),
        3 => Verdict::Conflict(standing()?),
        8 => Verdict::UnknownUser,
        9 => return Ok(Told::Undecided),
        code => Verdict::Refused(refused(code)?, standing()?),
    }))
}

pub(super) fn hold_outcome(raw: &[u8]) -> Result<Told<HoldOutcome>, Unavailable> {
    let mut reader = Reader(raw);
    let (code, tokens) = (reader.u8()?, reader.u64()?);
    let (expires_at, used) = (reader.time()?, reader.totals()?);
    if let Some(missing) = missing(code) {
        return Ok(missing);
    }
    let plan = PlanTerms::read(reader.0)?;
    let standing = || plan.as_ref().map(|plan| plan.standing(used)).ok_or_else(garbled);
    let held = || Ok(Held { tokens, expires_at, standing: standing()? });
    Ok(Told::Answer(match code {
        1 => HoldOutcome::Held(held()?),
        2 => HoldOutcome::Repeated(held()?),
        3 => HoldOutcome::Conflict,
        8 => HoldOutcome::UnknownUser,
        code => HoldOutcome::Refused(refused(code)?, standing()?),
    }))
}

pub(super) fn usage(raw: &[u8]) -> Result<Told<Option<Standing>>, Unavailable> {
    let mut reader = Reader(raw);
    let (code, used) = (reader.u8()?, reader.totals()?);
    match (missing(code), code) {
        (Some(missing), _) => Ok(missing),
        (None, 8) => Ok(Told::Answer(None)),
        (None, _) => {
            let plan = PlanTerms::read(reader.0)?.ok_or_else(garbled)?;
            Ok(Told::Answer(Some(plan.standing(used))))
        }
    }
}

fn missing<T>(code: u8) -> Option<Told<T>> {
    let (terms, totals) = match code {
        10 => (true, false),
        11 => (false, true),
        12 => (true, true),
        _ => return None,
    };
    Some(Told::Missing { terms, totals })
}

fn refused(code: u8) -> Result<Refused, Unavailable> {
    match code {
        4 => Ok(Refused::ModelNotInPlan),
        5 => Ok(Refused::RequestLimit),
        6 => Ok(Refused::TokenLimit),
        7 => Ok(Refused::Barred),
        _ => Err(garbled()),
    }
}

/// What of the terms stands in every answer.
struct PlanTerms {
    plan: PlanName,
    token_limit: Option<u64>,
    request_limits: [Option<u64>; 3],
}

impl PlanTerms {
    /// `None`: there are none, or the user is no more.
    fn read(raw: &[u8]) -> Result<Option<Self>, Unavailable> {
        let mut reader = Reader(raw);
        if raw.is_empty() || reader.u8()? == GONE {
            return Ok(None);
        }
        let (_version, _valid_until) = (reader.u64()?, reader.u64()?);
        let (_tier, _over_limit) = (Tier(reader.u8()?), reader.u8()?);
        let limits = reader.u8()?;
        let mut limit = |bit: u8| reader.u64().map(|limit| (limits & bit != 0).then_some(limit));
        let (token_limit, request_limits) = (limit(1)?, [limit(2)?, limit(4)?, limit(8)?]);
        let plan = PlanName::new(str::from_utf8(reader.0).map_err(|_| garbled())?);
        Ok(Some(Self { plan, token_limit, request_limits }))
    }

    fn standing(&self, used: Totals) -> Standing {
        Standing {
            plan: self.plan.clone(),
            used,
            token_limit: self.token_limit,
            request_limits: self.request_limits,
        }
    }
}

/// Reads a packed record from its beginning.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Unavailable> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or_else(garbled)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Unavailable> {
        Ok(self.bytes::<1>()?[0])
    }

    pub(super) fn u64(&mut self) -> Result<u64, Unavailable> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, Unavailable> {
        Ok(Timestamp::from_millis(i64::from_le_bytes(self.bytes()?)))
    }

    pub(super) fn totals(&mut self) -> Result<Totals, Unavailable> {
        Ok(Totals { tokens: self.u64()?, requests: [self.u64()?, self.u64()?, self.u64()?] })
    }
}

pub(super) fn garbled() -> Unavailable {
    unavailable("an answer that this version does not understand")
}
