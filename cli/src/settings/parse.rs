//! Reads single values. An error says what the value must be; who asks adds which value it was.

use std::net::SocketAddr;
use std::time::Duration;

/// `90s`, `15m`, `1h30m`, `7d`: whole numbers with ms, s, m, h or d, largest first or not.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a duration such as 90s, 15m, 1h30m or 7d".to_owned();
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let span = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
        sum = sum.checked_add(span).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(sum)
}

/// A duration that is not zero and at most 10 years: longer ones are a mistake in the unit.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if span.is_zero() || span > Duration::from_secs(3650 * 86_400) {
        return Err("must be longer than nothing and at most 3650d".to_owned());
    }
    Ok(span)
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address with a port, such as 127.0.0.1:8080".to_owned())
}

/// A number of at least 1.
pub(super) fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| "must be a number from 1 to 1000000".to_owned())
}

/// A web origin as browsers send it: scheme and host, no path.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits = |host: &str| !host.is_empty() && !host.contains(['/', '*', '?', '#', ' ', ',']);
    match host {
        Some(host) if fits(host) && text.is_ascii() => Ok(text.to_owned()),
        _ => Err("must be a web origin such as https://app.example.org, without a path".to_owned()),
    }
}

/// An address, or a network of them.
pub(super) fn network(text: &str) -> Result<edge::Network, String> {
    text.parse().map_err(|error: edge::NotANetwork| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        let seconds = |text| duration(text).map(|span| span.as_secs());
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "7", "d", "7 days", "-1s", "1.5h", "99999999999999999999d", "1hh"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(positive_duration("0s").is_err());
        assert!(positive_duration("4000d").is_err());
    }

    #[test]
    fn an_origin_has_no_path() {
        assert!(origin("https://app.example.org").is_ok());
        assert!(origin("http://localhost:3000").is_ok());
        for wrong in
            ["*", "example.org", "https://", "https://a.org/", "https://a.org/x", "https://*.org"]
        {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
