//! Numbers in few bytes, as Protobuf has them.

use prost::encoding::{decode_varint, encode_varint};
use rusqlite::{Error, ffi};

/// What cannot have been written by this program.
pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    let corrupt = ffi::Error::new(ffi::SQLITE_CORRUPT);
    Error::SqliteFailure(corrupt, Some(format!("stored events: {what}")))
}

/// Writes a varint.
pub(super) fn unsigned(value: u64, into: &mut Vec<u8>) {
    encode_varint(value, into);
}

/// Writes a zigzag varint: small numbers of either sign are short.
pub(super) fn signed(value: i64, into: &mut Vec<u8>) {
    encode_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), into);
}

/// Takes a varint off `bytes`.
pub(super) fn number(bytes: &mut &[u8]) -> rusqlite::Result<u64> {
    decode_varint(bytes).map_err(damaged)
}

/// Takes a zigzag varint off `bytes`.
pub(super) fn signed_number(bytes: &mut &[u8]) -> rusqlite::Result<i64> {
    let value = number(bytes)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}
