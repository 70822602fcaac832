//! Reading: the fields as they stand in the bytes, then the event they make.

use std::time::Duration;

use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, ContentDigest, EventId, Flags, Horizon, IdDigest, IdOrigin, Metadata,
    RequestType, ReservationId, Tick, TokenCounts, UsageEvent,
};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{Names, TICK_VERSION, Undecodable, VERSION, number};

/// What was found of each field, borrowed from the record. Of a field that stands twice the last
/// one counts, as Protobuf has it.
#[derive(Default)]
pub(super) struct Fields<'a> {
    version: u64,
    user_id: &'a [u8],
    event_id: &'a [u8],
    request_type: u64,
    model: &'a [u8],
    prompt_tokens: u64,
    completion_tokens: u64,
    occurred_at: u64,
    received_at: u64,
    admitted_at: u64,
    id_digest: &'a [u8],
    content_digest: &'a [u8],
    plan: &'a [u8],
    id_origin: u64,
    occurred_at_given: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
    flags: u64,
    over_hold: u64,
    reservation_id: Option<&'a [u8]>,
    metadata: Option<&'a [u8]>,
    horizon_millis: Option<u64>,
}

impl<'a> Fields<'a> {
    pub(super) fn read(mut value: &'a [u8]) -> Result<Self, Undecodable> {
        let mut fields = Self::default();
        while !value.is_empty() {
            let (number, wire_type) = key(&mut value)?;
            match (fields.place(number), wire_type) {
                (Place::Number(place), WireType::Varint) => {
                    *place = varint(&mut value)?;
                }
                (Place::OptionalNumber(place), WireType::Varint) => {
                    *place = Some(varint(&mut value)?);
                }
                (Place::Bytes(place), WireType::LengthDelimited) => {
                    *place = length_delimited(&mut value)?;
                }
                (Place::Optional(place), WireType::LengthDelimited) => {
                    *place = Some(length_delimited(&mut value)?);
                }
                (Place::Unknown, wire_type) => {
                    let context = DecodeContext::default();
                    skip_field(wire_type, number, &mut value, context).map_err(damaged)?;
                }
                (_, wire_type) => {
                    return Err(Undecodable(format!("field {number} has type {wire_type:?}")));
                }
            }
        }
        Ok(fields)
    }

    fn place(&mut self, number: u32) -> Place<'_, 'a> {
        match number {
            number::VERSION => Place::Number(&mut self.version),
            number::USER_ID => Place::Bytes(&mut self.user_id),
            number::EVENT_ID => Place::Bytes(&mut self.event_id),
            number::REQUEST_TYPE => Place::Number(&mut self.request_type),
            number::MODEL => Place::Bytes(&mut self.model),
            number::PROMPT_TOKENS => Place::Number(&mut self.prompt_tokens),
            number::COMPLETION_TOKENS => Place::Number(&mut self.completion_tokens),
            number::OCCURRED_AT => Place::Number(&mut self.occurred_at),
            number::RECEIVED_AT => Place::Number(&mut self.received_at),
            number::ADMITTED_AT => Place::Number(&mut self.admitted_at),
            number::ID_DIGEST => Place::Bytes(&mut self.id_digest),
            number::CONTENT_DIGEST => Place::Bytes(&mut self.content_digest),
            number::PLAN => Place::Bytes(&mut self.plan),
            number::ID_ORIGIN => Place::Number(&mut self.id_origin),
            number::OCCURRED_AT_GIVEN => Place::Number(&mut self.occurred_at_given),
            number::CACHED_TOKENS => Place::Number(&mut self.cached_tokens),
            number::REASONING_TOKENS => Place::Number(&mut self.reasoning_tokens),
            number::FLAGS => Place::Number(&mut self.flags),
            number::OVER_HOLD => Place::Number(&mut self.over_hold),
            number::RESERVATION_ID => Place::Optional(&mut self.reservation_id),
            number::METADATA => Place::Optional(&mut self.metadata),
            number::HORIZON_MILLIS => Place::OptionalNumber(&mut self.horizon_millis),
            _ => Place::Unknown,
        }
    }

    /// The tick that it is, if it is one.
    pub(super) fn tick(&self) -> Option<Tick> {
        let within = |millis| Horizon::Within(Duration::from_millis(millis));
        let horizon = self.horizon_millis.map_or(Horizon::Ever, within);
        (self.version == TICK_VERSION).then_some(Tick { horizon })
    }

    pub(super) fn into_event(self, names: &mut Names) -> Result<AdmittedEvent, Undecodable> {
        if self.version != VERSION {
            return Err(Undecodable(format!("version {} is not known", self.version)));
        }
        let event = UsageEvent {
            user_id: UserId::from_bytes(array("user_id", self.user_id)?),
            event_id: EventId::new(text("event_id", self.event_id)?)
                .map_err(|error| wrong("event_id", error))?,
            id_origin: match self.id_origin {
                0 => IdOrigin::Client,
                1 => IdOrigin::Server,
                other => return Err(wrong("id_origin", other)),
            },
            request_type: request_type(self.request_type)?,
            model: names.model(text("model", self.model)?),
            tokens: TokenCounts {
                prompt: count("prompt_tokens", self.prompt_tokens)?,
                completion: count("completion_tokens", self.completion_tokens)?,
                cached: count("cached_tokens", self.cached_tokens)?,
                reasoning: count("reasoning_tokens", self.reasoning_tokens)?,
            },
            occurred_at: time("occurred_at", self.occurred_at)?,
            occurred_at_given: self.occurred_at_given != 0,
            received_at: time("received_at", self.received_at)?,
            reservation_id: match self.reservation_id {
                Some(id) => Some(
                    ReservationId::new(text("reservation_id", id)?)
                        .map_err(|error| wrong("reservation_id", error))?,
                ),
                None => None,
            },
            metadata: match self.metadata {
                Some(metadata) => Some(Metadata::from_stored(text("metadata", metadata)?)),
                None => None,
            },
        };
        Ok(AdmittedEvent {
            event,
            id_digest: IdDigest(array("id_digest", self.id_digest)?),
            content_digest: ContentDigest(array("content_digest", self.content_digest)?),
            plan: names.plan(text("plan", self.plan)?),
            admitted_at: time("admitted_at", self.admitted_at)?,
            flags: u8::try_from(self.flags)
                .map(Flags::from_bits)
                .map_err(|_| wrong("flags", self.flags))?,
            over_hold: self.over_hold,
        })
    }
}

/// Where the value of a field goes.
enum Place<'f, 'a> {
    Number(&'f mut u64),
    Bytes(&'f mut &'a [u8]),
    Optional(&'f mut Option<&'a [u8]>),
    OptionalNumber(&'f mut Option<u64>),
    Unknown,
}

/// Takes bytes after their length off `value`.
pub(super) fn length_delimited<'a>(value: &mut &'a [u8]) -> Result<&'a [u8], Undecodable> {
    let length = varint(value)?;
    let split = usize::try_from(length).ok().and_then(|length| value.split_at_checked(length));
    let Some((bytes, rest)) = split else {
        let left = value.len();
        return Err(Undecodable(format!("a length of {length} bytes where {left} are left")));
    };
    *value = rest;
    Ok(bytes)
}

/// Nearly all keys, lengths and counts have one byte.
#[inline]
fn varint(value: &mut &[u8]) -> Result<u64, Undecodable> {
    match value.split_first() {
        Some((&byte, rest)) if byte < 0x80 => {
            *value = rest;
            Ok(byte.into())
        }
        _ => decode_varint(value).map_err(damaged),
    }
}

#[inline]
fn key(value: &mut &[u8]) -> Result<(u32, WireType), Undecodable> {
    match value.split_first() {
        Some((&byte @ 0x08..0x80, rest)) => {
            *value = rest;
            let wire_type = WireType::try_from(u64::from(byte & 7)).map_err(damaged)?;
            Ok((u32::from(byte >> 3), wire_type))
        }
        _ => decode_key(value).map_err(damaged),
    }
}

fn damaged(error: prost::DecodeError) -> Undecodable {
    Undecodable(error.to_string())
}

fn wrong(field: &str, what: impl std::fmt::Display) -> Undecodable {
    Undecodable(format!("{field}: {what}"))
}

fn array<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Undecodable> {
    bytes.try_into().map_err(|_| wrong(field, format_args!("{} bytes, not {N}", bytes.len())))
}

fn text<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a str, Undecodable> {
    std::str::from_utf8(bytes).map_err(|error| wrong(field, error))
}

fn count(field: &str, number: u64) -> Result<u32, Undecodable> {
    u32::try_from(number).map_err(|_| wrong(field, number))
}

fn time(field: &str, number: u64) -> Result<Timestamp, Undecodable> {
    let millis = number.cast_signed();
    let time = Timestamp::from_millis(millis);
    if time.as_millis() == millis { Ok(time) } else { Err(wrong(field, millis)) }
}

/// On the wire 0 means "not said", so the numbers are one above those of the domain.
fn request_type(number: u64) -> Result<RequestType, Undecodable> {
    number
        .checked_sub(1)
        .and_then(RequestType::from_number)
        .ok_or_else(|| wrong("request_type", number))
}
