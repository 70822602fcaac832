//! The Protobuf codec of the event log's records: the schema is `proto/usage_event.proto`.
//!
//! Written on prost's primitives instead of a derived message: every event passes here twice, and a
//! derived message would copy each string and digest once more. The tests hold it against the
//! derived message, byte by byte.

mod fields;
mod names;
#[cfg(test)]
mod tests;

use metering::usage::{AdmittedEvent, Horizon, IdOrigin, Payload, Tick};
use prost::encoding::{WireType, encode_varint};

use fields::Fields;
pub use names::Names;

/// The version that is written. Readers set aside every other one.
const VERSION: u64 = 1;

/// The version of a record that holds no event.
const TICK_VERSION: u64 = 2;

/// Field numbers of `proto/usage_event.proto`.
mod number {
    pub(super) const VERSION: u32 = 1;
    pub(super) const USER_ID: u32 = 2;
    pub(super) const EVENT_ID: u32 = 3;
    pub(super) const REQUEST_TYPE: u32 = 4;
    pub(super) const MODEL: u32 = 5;
    pub(super) const PROMPT_TOKENS: u32 = 6;
    pub(super) const COMPLETION_TOKENS: u32 = 7;
    pub(super) const OCCURRED_AT: u32 = 8;
    pub(super) const RECEIVED_AT: u32 = 9;
    pub(super) const ADMITTED_AT: u32 = 10;
    pub(super) const ID_DIGEST: u32 = 11;
    pub(super) const CONTENT_DIGEST: u32 = 12;
    pub(super) const PLAN: u32 = 13;
    pub(super) const ID_ORIGIN: u32 = 14;
    pub(super) const OCCURRED_AT_GIVEN: u32 = 15;
    pub(super) const CACHED_TOKENS: u32 = 16;
    pub(super) const REASONING_TOKENS: u32 = 17;
    pub(super) const FLAGS: u32 = 18;
    pub(super) const OVER_HOLD: u32 = 19;
    pub(super) const RESERVATION_ID: u32 = 20;
    pub(super) const METADATA: u32 = 21;
    pub(super) const HORIZON_MILLIS: u32 = 22;
}

/// Bytes that are no record of a version known here: a dead letter, never a guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undecodable(String);

/// Writes `admitted` at the end of `into`: the record's value.
pub fn encode(admitted: &AdmittedEvent, into: &mut Vec<u8>) {
    let event = &admitted.event;
    let tokens = event.tokens;
    let request_type = u64::from(event.request_type.number()) + 1;
    whole(number::VERSION, VERSION, into);
    filled(number::USER_ID, event.user_id.as_bytes(), into);
    filled(number::EVENT_ID, event.event_id.as_str().as_bytes(), into);
    whole(number::REQUEST_TYPE, request_type, into);
    filled(number::MODEL, event.model.as_str().as_bytes(), into);
    whole(number::PROMPT_TOKENS, tokens.prompt.into(), into);
    whole(number::COMPLETION_TOKENS, tokens.completion.into(), into);
    whole(number::OCCURRED_AT, event.occurred_at.as_millis().cast_unsigned(), into);
    whole(number::RECEIVED_AT, event.received_at.as_millis().cast_unsigned(), into);
    whole(number::ADMITTED_AT, admitted.admitted_at.as_millis().cast_unsigned(), into);
    filled(number::ID_DIGEST, &admitted.id_digest.0, into);
    filled(number::CONTENT_DIGEST, &admitted.content_digest.0, into);
    filled(number::PLAN, admitted.plan.as_str().as_bytes(), into);
    whole(number::ID_ORIGIN, u64::from(event.id_origin == IdOrigin::Server), into);
    whole(number::OCCURRED_AT_GIVEN, u64::from(event.occurred_at_given), into);
    whole(number::CACHED_TOKENS, tokens.cached.into(), into);
    whole(number::REASONING_TOKENS, tokens.reasoning.into(), into);
    whole(number::FLAGS, admitted.flags.bits().into(), into);
    whole(number::OVER_HOLD, admitted.over_hold, into);
    if let Some(id) = &event.reservation_id {
        run(number::RESERVATION_ID, id.as_str().as_bytes(), into);
    }
    if let Some(metadata) = &event.metadata {
        run(number::METADATA, metadata.as_str().as_bytes(), into);
    }
}

/// Writes `admitted` at the end of `into`, after its length as a varint: how Protobuf streams
/// messages.
pub fn encode_delimited(admitted: &AdmittedEvent, into: &mut Vec<u8>) {
    let start = into.len();
    encode(admitted, into);
    // The length is known only now; moving some 200 bytes costs less than measuring them first.
    let end = into.len();
    varint(u64::try_from(end - start).unwrap_or(u64::MAX), into);
    let length_bytes = into.len() - end;
    into[start..].rotate_right(length_bytes);
}

/// Takes the first record's value off `stream`, as [`encode_delimited`] wrote it.
///
/// # Errors
/// [`Undecodable`] when the length is damaged or runs past the end; `stream` is then of no use.
pub fn split_delimited<'a>(stream: &mut &'a [u8]) -> Result<&'a [u8], Undecodable> {
    fields::length_delimited(stream)
}

/// Writes a tick at the end of `into`: the record's value.
pub fn encode_tick(tick: Tick, into: &mut Vec<u8>) {
    whole(number::VERSION, TICK_VERSION, into);
    if let Horizon::Within(horizon) = tick.horizon {
        key(number::HORIZON_MILLIS, WireType::Varint, into);
        varint(u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX), into);
    }
}

/// Reads a record's value, whatever it holds. It shares its names with the records that were read with
/// the same `names`.
pub fn payload(value: &[u8], names: &mut Names) -> Payload {
    let read = Fields::read(value).and_then(|fields| match fields.tick() {
        Some(tick) => Ok(Payload::Tick(tick)),
        None => fields.into_event(names).map(|event| Payload::Event(Box::new(event))),
    });
    read.unwrap_or_else(|error| Payload::Undecodable {
        bytes: value.to_vec(),
        reason: error.to_string(),
    })
}

/// Reads the value of a record that holds an event.
///
/// # Errors
/// [`Undecodable`] says which field is wrong.
pub fn decode(value: &[u8]) -> Result<AdmittedEvent, Undecodable> {
    Fields::read(value)?.into_event(&mut Names::default())
}

/// A number; left out when it is 0, as proto3 has it.
fn whole(number: u32, value: u64, into: &mut Vec<u8>) {
    if value != 0 {
        key(number, WireType::Varint, into);
        varint(value, into);
    }
}

/// Bytes after their length; left out when there are none, as proto3 has it.
fn filled(number: u32, bytes: &[u8], into: &mut Vec<u8>) {
    if !bytes.is_empty() {
        run(number, bytes, into);
    }
}

/// Bytes after their length.
fn run(number: u32, bytes: &[u8], into: &mut Vec<u8>) {
    key(number, WireType::LengthDelimited, into);
    varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX), into);
    into.extend_from_slice(bytes);
}

fn key(number: u32, wire_type: WireType, into: &mut Vec<u8>) {
    varint(u64::from(number << 3 | wire_type as u32), into);
}

/// Nearly all keys and lengths have one byte.
#[inline]
fn varint(value: u64, into: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(byte) if byte < 0x80 => into.push(byte),
        _ => encode_varint(value, into),
    }
}
