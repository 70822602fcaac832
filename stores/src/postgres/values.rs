//! The domain's values as Postgres keeps them: times as `timestamptz`, users' ids as `uuid`.

use std::str::FromStr;

use metering::accounts::UserId;
use metering::time::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{
    PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef,
};
use sqlx::{Decode, Encode, Postgres, Row, Type};

/// 2000-01-01T00:00:00Z, from which Postgres counts microseconds, in milliseconds since 1970.
const POSTGRES_EPOCH_MILLIS: i64 = 946_684_800_000;

/// An instant in a `timestamptz` column. Digits below the millisecond, which only others write, are
/// cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant(pub(super) Timestamp);

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = (self.0.as_millis() - POSTGRES_EPOCH_MILLIS) * 1000;
        Encode::<Postgres>::encode(micros, buffer)
    }
}

impl Decode<'_, Postgres> for Instant {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("a time as text: only prepared statements may read it".into());
        }
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        // `infinity` and what lies outside of the years 1 to 9999 becomes the nearest that is not.
        let millis = micros.div_euclid(1000).saturating_add(POSTGRES_EPOCH_MILLIS);
        Ok(Self(Timestamp::from_millis(millis)))
    }
}

/// A user's id in a `uuid` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) UserId);

impl Type<Postgres> for Id {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("uuid")
    }
}

impl PgHasArrayType for Id {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_uuid")
    }
}

impl Encode<'_, Postgres> for Id {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Id {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Self(UserId::from_bytes(value.as_bytes()?.try_into()?))),
            PgValueFormat::Text => Ok(Self(value.as_str()?.parse()?)),
        }
    }
}

/// The user's id in a column.
pub(super) fn user_id(row: &PgRow, column: &str) -> Result<UserId, sqlx::Error> {
    row.try_get::<Id, _>(column).map(|id| id.0)
}

/// The time in a column.
pub(super) fn instant(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get::<Instant, _>(column).map(|instant| instant.0)
}

/// The time in a column that may be empty.
pub(super) fn maybe_instant(row: &PgRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<Instant>, _>(column)?.map(|instant| instant.0))
}

/// A word of the domain in a column of text: another one means damage.
pub(crate) fn word<T: FromStr>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| damaged(format!("{column} holds {text:?}")))
}

/// A row that says what no row may say.
pub(super) fn damaged(what: String) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_that_of_postgres() {
        let epoch = "2000-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(epoch.as_millis(), POSTGRES_EPOCH_MILLIS);
    }
}
