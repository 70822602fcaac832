//! Times as Postgres keeps them: `timestamptz`, read and written to the millisecond.

use metering::time::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_that_of_postgres() {
        let epoch = "2000-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(epoch.as_millis(), POSTGRES_EPOCH_MILLIS);
    }
}
