//! A piece of one user's history as it stands in a row.
//!
//! The row's key has the time and the offset of the first entry. The bytes hold for each entry: how much
//! later it occurred than the one before it (varint), how far its offset and its block are from those of
//! the one before it (zigzag varints; the first entry's from the key, the block's from the key's offset),
//! and 4 times the number of its model plus the number of its request type (varint).

use super::Entry;
use crate::sqlite::ledger::events::coding::{damaged, number, signed, signed_number, unsigned};

/// Entries of a stretch at most: some hundreds of bytes, which fit into the page of the key.
pub(super) const ENTRIES_MAX: usize = 128;

/// Writes entries of one user, in order.
pub(super) fn encode(stretch: &[Entry], into: &mut Vec<u8>) {
    into.clear();
    let Some(first) = stretch.first() else { return };
    let mut last = (first.occurred_at, first.offset, first.offset);
    for entry in stretch {
        unsigned(entry.occurred_at.wrapping_sub(last.0).cast_unsigned(), into);
        signed(entry.offset.wrapping_sub(last.1), into);
        signed(entry.block.wrapping_sub(last.2), into);
        let model = entry.model.cast_unsigned();
        unsigned((model << 2) | u64::from(entry.request_type), into);
        last = (entry.occurred_at, entry.offset, entry.block);
    }
}

/// Reads what [`encode`] wrote of this user, whose first entry has this time and offset, behind what
/// `into` holds.
pub(super) fn decode(
    user: i64,
    (occurred_at, offset): (i64, i64),
    mut bytes: &[u8],
    into: &mut Vec<Entry>,
) -> rusqlite::Result<()> {
    let mut last = (occurred_at, offset, offset);
    while !bytes.is_empty() {
        let occurred_at = last.0.wrapping_add(number(&mut bytes)?.cast_signed());
        let offset = last.1.wrapping_add(signed_number(&mut bytes)?);
        let block = last.2.wrapping_add(signed_number(&mut bytes)?);
        let kind = number(&mut bytes)?;
        let request_type = u8::try_from(kind & 3).map_err(damaged)?;
        let model = (kind >> 2).cast_signed();
        into.push(Entry { user, occurred_at, offset, block, model, request_type });
        last = (occurred_at, offset, block);
    }
    Ok(())
}
