//! How values stand in rows, and how errors leave the store.

use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::RequestType;
use sqlx::Row as _;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgRow;

pub(super) use crate::postgres::{Id, word};

/// The label of this store in errors and metrics.
pub(super) const STORE: &str = "ledger";

/// Whatever a server says, the caller can only ask again.
pub(super) fn unavailable(error: impl std::fmt::Display) -> Unavailable {
    Unavailable::new(STORE, error)
}

/// A count as Postgres keeps it; an error when it does not fit.
pub(super) fn stored(count: u64) -> Result<i64, Unavailable> {
    i64::try_from(count).map_err(|_| unavailable(format!("{count} does not fit 63 bits")))
}

/// A column that is never negative.
pub(super) fn count(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|error| odd(column, error))
}

/// A column with the number of a partition.
pub(super) fn partition(row: &PgRow) -> Result<metering::usage::Partition, sqlx::Error> {
    let number: i32 = row.try_get("log_partition")?;
    let number = u32::try_from(number).map_err(|error| odd("log_partition", error))?;
    Ok(metering::usage::Partition::new(number))
}

/// The number of a partition as Postgres keeps it.
pub(super) fn partition_number(partition: metering::usage::Partition) -> Result<i32, Unavailable> {
    i32::try_from(partition.number()).map_err(unavailable)
}

fn odd(column: &str, source: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: source.into() }
}

/// A user's id as ClickHouse writes a UUID: two numbers of 64 bits, the higher one first.
pub(super) fn uuid(user: UserId) -> u128 {
    let bytes = u128::from_be_bytes(*user.as_bytes());
    bytes.rotate_left(64)
}

/// The id in a UUID of ClickHouse.
pub(super) fn user_id(uuid: u128) -> UserId {
    UserId::from_bytes(uuid.rotate_right(64).to_be_bytes())
}

/// The number of a request type in every table: that of its name in the enumeration.
pub(super) const fn type_number(request_type: RequestType) -> i8 {
    request_type.number().cast_signed()
}

/// The request type of a number.
pub(super) fn request_type(number: i8) -> Result<RequestType, Unavailable> {
    RequestType::from_number(number)
        .ok_or_else(|| unavailable(format!("{number} is no request type")))
}

/// What a digest takes in [`literals`].
pub(super) const LITERAL_BYTES: usize = 16 * 4 + 3;

/// Sixteen bytes each, as literals with commas between.
///
/// For the statement itself: a parameter must be cut into its ids by a query within the query, which
/// took the server two to five times as long for 1 to 200 ids.
pub(super) fn literals(digests: &[metering::usage::IdDigest]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(digests.len() * LITERAL_BYTES);
    for digest in digests {
        text.push_str(if text.is_empty() { "'" } else { ",'" });
        for byte in digest.0 {
            text.push_str("\\x");
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text.push('\'');
    }
    text
}

/// A time as ClickHouse keeps it.
pub(super) const fn millis(time: Timestamp) -> i64 {
    time.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_of_clickhouse_is_two_numbers_the_higher_one_first() {
        let user: UserId = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        let bytes = uuid(user).to_le_bytes();
        assert_eq!(bytes[..8], 0x0011_2233_4455_6677_u64.to_le_bytes());
        assert_eq!(bytes[8..], 0x8899_aabb_ccdd_eeff_u64.to_le_bytes());
        assert_eq!(user_id(uuid(user)), user);
    }
}
