//! RFC 3339 times, days and months: what is read is shown so that it is read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metering::time::{Day, Period, Timestamp};

fuzz_target!(|text: &str| {
    if let Ok(instant) = text.parse::<Timestamp>() {
        assert_eq!(instant.to_string().parse(), Ok(instant));
        let (day, period) = (instant.day(), Period::of(instant));
        assert!(day.start() <= instant && instant < day.next().start());
        assert!(period.start() <= instant && instant <= period.last_second().max(instant));
        assert!(instant.hour().start() <= instant);
    }
    if let Ok(day) = text.parse::<Day>() {
        assert_eq!(day.to_string().parse(), Ok(day));
    }
    if let Ok(period) = text.parse::<Period>() {
        assert_eq!(period.to_string().parse(), Ok(period));
        assert_eq!(Period::of(period.start()), period);
    }
});
