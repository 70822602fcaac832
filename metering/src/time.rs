//! Time as tokenmeter counts it: UTC, in milliseconds, days, hours and calendar months.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const DAY_MILLIS: i64 = 86_400_000;
const HOUR_MILLIS: i64 = 3_600_000;

/// An instant: milliseconds since 1970-01-01T00:00:00Z. Shown as RFC 3339 UTC with milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant that can be shown: year 1.
    pub const MIN: Self = Self(-62_135_596_800_000);
    /// The latest instant that can be shown: the end of year 9999.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// From milliseconds since the Unix epoch, held within [`Self::MIN`] and [`Self::MAX`].
    pub const fn from_millis(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant and `span` more, at most [`Self::MAX`].
    pub fn plus(self, span: Duration) -> Self {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// This instant less `span`, at least [`Self::MIN`].
    pub fn minus(self, span: Duration) -> Self {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(millis))
    }

    /// The time from `earlier` to this instant; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The UTC day that holds this instant.
    pub fn day(self) -> Day {
        Day(i32::try_from(self.0.div_euclid(DAY_MILLIS)).unwrap_or(0))
    }

    /// The UTC hour that holds this instant.
    pub fn hour(self) -> Hour {
        Hour(i32::try_from(self.0.div_euclid(HOUR_MILLIS)).unwrap_or(0))
    }

    fn zoned(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.zoned())
    }
}

/// Not a time as RFC 3339 has it, or outside the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time such as 2026-10-31T23:59:59.000Z")]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;

    /// Reads an RFC 3339 time with any offset; digits below the millisecond are cut.
    fn from_str(text: &str) -> Result<Self, NotATime> {
        // The library also reads RFC 9557 annotations ("[Europe/Berlin]"), which RFC 3339 lacks.
        if text.contains('[') {
            return Err(NotATime);
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        let millis = instant.as_nanosecond().div_euclid(1_000_000);
        let millis = i64::try_from(millis).map_err(|_| NotATime)?;
        if !(Self::MIN.0..=Self::MAX.0).contains(&millis) {
            return Err(NotATime);
        }
        Ok(Self(millis))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A UTC calendar day: days since 1970-01-01. Shown as `2026-10-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// From days since 1970-01-01.
    pub const fn from_number(days: i32) -> Self {
        Self(days)
    }

    /// Days since 1970-01-01.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The first instant of the day.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.0) * DAY_MILLIS)
    }

    /// The day after.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start().zoned().to_zoned(jiff::tz::TimeZone::UTC).date())
    }
}

impl FromStr for Day {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if text.len() != 10 {
            return Err(NotATime);
        }
        let date: Date = text.parse().map_err(|_| NotATime)?;
        Ok(date_start(date)?.day())
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A UTC hour: hours since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(i32);

impl Hour {
    /// From hours since the Unix epoch.
    pub const fn from_number(hours: i32) -> Self {
        Self(hours)
    }

    /// Hours since the Unix epoch.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The first instant of the hour.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.0) * HOUR_MILLIS)
    }
}

/// A UTC calendar month, `[start, end)`: what a plan's limits are for. Shown as `2026-10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(i32);

impl Period {
    /// The month that holds `instant`.
    pub fn of(instant: Timestamp) -> Self {
        let date = instant.zoned().to_zoned(jiff::tz::TimeZone::UTC).date();
        Self(i32::from(date.year()) * 12 + i32::from(date.month()) - 1)
    }

    /// From [`Self::number`].
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Year × 12 + month − 1: how stores keep it.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The first instant of the month.
    pub fn start(self) -> Timestamp {
        let year = i16::try_from(self.0.div_euclid(12)).unwrap_or(9999);
        let month = i8::try_from(self.0.rem_euclid(12) + 1).unwrap_or(1);
        Date::new(year, month, 1)
            .ok()
            .and_then(|date| date_start(date).ok())
            .unwrap_or(Timestamp::MAX)
    }

    /// The first instant of the next month: when the counters start anew.
    pub fn end(self) -> Timestamp {
        self.next().start()
    }

    /// The last whole second of the month, as `end_date` shows it.
    pub fn last_second(self) -> Timestamp {
        self.end().minus(Duration::from_secs(1))
    }

    /// The month after.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The month before.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

impl FromStr for Period {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if text.len() != 7 {
            return Err(NotATime);
        }
        let first: Day = format!("{text}-01").parse()?;
        Ok(Self::of(first.start()))
    }
}

fn date_start(date: Date) -> Result<Timestamp, NotATime> {
    let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| NotATime)?;
    let millis = zoned.timestamp().as_millisecond();
    if date.year() < 1 { Err(NotATime) } else { Ok(Timestamp::from_millis(millis)) }
}

/// Where the present comes from.
pub trait Clock: Send + Sync {
    /// The present, as this machine knows it. May step back when the machine's clock is set.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until it is told to move: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_millis()))
    }

    /// Moves forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().plus(span));
    }

    /// Moves to `now`, forward or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_is_shown_in_utc_with_milliseconds() {
        assert_eq!(at("2026-10-31T23:59:59Z").to_string(), "2026-10-31T23:59:59.000Z");
        assert_eq!(at("2026-11-01T01:00:00.1239+02:00").to_string(), "2026-10-31T23:00:00.123Z");
        assert_eq!(at("1969-12-31T23:59:59.9999Z").as_millis(), -1);
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for text in ["", "yesterday", "2026-10-31", "2026-10-31T23:59:59", "2026-13-01T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NotATime), "{text}");
        }
        assert_eq!("2026-10-31T23:59:59+02:00[Europe/Berlin]".parse::<Timestamp>(), Err(NotATime));
    }

    #[test]
    fn a_period_is_the_calendar_month() {
        let october = Period::of(at("2026-10-31T23:59:59.999Z"));
        assert_eq!(october.to_string(), "2026-10");
        assert_eq!(october.start(), at("2026-10-01T00:00:00Z"));
        assert_eq!(october.end(), at("2026-11-01T00:00:00Z"));
        assert_eq!(october.last_second().to_string(), "2026-10-31T23:59:59.000Z");
        assert_eq!(Period::of(at("2026-12-31T00:00:00Z")).next().to_string(), "2027-01");
        assert_eq!("2026-10".parse::<Period>(), Ok(october));
        assert_eq!("2026-1".parse::<Period>(), Err(NotATime));
        assert_eq!("2026-13".parse::<Period>(), Err(NotATime));
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_its_day_hour_and_period(millis in Timestamp::MIN.0..Timestamp::MAX.0) {
            let instant = Timestamp::from_millis(millis);
            prop_assert!(instant.day().start() <= instant && instant < instant.day().next().start());
            prop_assert!(instant.hour().start() <= instant);
            let period = Period::of(instant);
            prop_assert!(period.start() <= instant && (instant < period.end() || period.end() == Timestamp::MAX));
            prop_assert_eq!(instant.to_string().parse::<Timestamp>(), Ok(instant));
            prop_assert_eq!(instant.day().to_string().parse::<Day>(), Ok(instant.day()));
        }
    }
}
