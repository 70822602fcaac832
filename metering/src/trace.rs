//! The caller's place in a distributed trace, as W3C Trace Context writes it
//! (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// Bytes of version 00; a later version may go on after a dash.
const BYTES: usize = 55;

/// The only flag that a later version is known to keep.
const SAMPLED: u8 = 1;

/// The value of a `traceparent` header, passed on as it came: no span of our own is put in between.
///
/// Displayed in version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: TraceId,
    /// The caller's span.
    parent_id: NonZeroU64,
    flags: u8,
}

/// What all records and log lines of one trace have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceParent {
    /// The header's name, in HTTP and in Kafka.
    pub const HEADER: &str = "traceparent";

    /// `None` for what the specification says to ignore (section "Versioning of traceparent"). Of a
    /// version later than 00 only the known fields are taken, and of its flags only *sampled*.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (fields, rest) = header.split_first_chunk::<BYTES>()?;
        let version = hex(&fields[..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        if !is_whole || [2, 35, 52].iter().any(|place| fields[*place] != b'-') {
            return None;
        }
        let trace_id = TraceId(NonZeroU128::new(hex(&fields[3..35])?)?);
        let parent_id = NonZeroU64::new(u64::try_from(hex(&fields[36..52])?).ok()?)?;
        let flags = u8::try_from(hex(&fields[53..])?).ok()?;
        let flags = if version == 0 { flags } else { flags & SAMPLED };
        Some(Self { trace_id, parent_id, flags })
    }

    /// Which trace.
    pub fn trace_id(self) -> TraceId {
        self.trace_id
    }
}

/// At most 32 digits, of which capital ones are none.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u128::from(digit))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification's example.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parsed(header: &str) -> Option<String> {
        TraceParent::parse(header.as_bytes()).map(|parent| parent.to_string())
    }

    #[test]
    fn version_00_is_passed_on_as_it_came() {
        assert_eq!(parsed(EXAMPLE).as_deref(), Some(EXAMPLE));
        let trace_id = TraceParent::parse(EXAMPLE.as_bytes()).unwrap().trace_id();
        assert_eq!(trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_later_version_is_taken_as_far_as_it_is_known() {
        let later = EXAMPLE.replacen("00", "cc", 1);
        for rest in ["", "-", "-what-the-future-will-be-like"] {
            assert_eq!(parsed(&format!("{later}{rest}")).as_deref(), Some(EXAMPLE), "{rest}");
        }
        assert_eq!(parsed(&format!("{}ff", &later[..53])).as_deref(), Some(EXAMPLE));
        assert_eq!(parsed(&format!("{later}.what")), None);
    }

    #[test]
    fn what_is_invalid_is_ignored() {
        for invalid in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parsed(invalid), None, "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn what_is_valid_is_displayed_as_it_was_read(
            text in "00-[0-9a-f]{31}[1-9a-f]-[1-9a-f][0-9a-f]{15}-[0-9a-f]{2}",
        ) {
            let read = parsed(&text);
            prop_assert_eq!(read, Some(text));
        }

        #[test]
        fn whatever_is_read_is_a_valid_version_00(
            text in "([0-9a-fA-F]{2})?-?[0-9a-f]{30,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}(-.{0,5})?",
        ) {
            if let Some(read) = parsed(&text) {
                prop_assert_eq!(read.len(), BYTES);
                prop_assert_eq!(parsed(&read), Some(read));
            }
        }

        #[test]
        fn any_change_of_one_byte_is_another_trace_or_none(place in 0..BYTES, byte: u8) {
            let mut text = EXAMPLE.as_bytes().to_vec();
            prop_assume!(text[place] != byte);
            text[place] = byte;
            let read = TraceParent::parse(&text);
            let same = read == TraceParent::parse(EXAMPLE.as_bytes());
            // Another version is the same trace.
            prop_assert!(!same || place < 2, "{:?}", read);
        }
    }
}
