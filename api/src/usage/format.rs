//! Which of the two formats a client asks for.

use axum::extract::FromRequestParts;
use edge::{Code, Problem};
use http::HeaderMap;
use http::header::ACCEPT;
use http::request::Parts;

/// How an answer is written. As an extractor it answers 406 when the client takes neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/json`: also when the client likes both as much.
    Json,
    /// `text/csv`.
    Csv,
}

impl<S: Send + Sync> FromRequestParts<S> for Format {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        preferred(&parts.headers).ok_or_else(|| {
            Problem::new(Code::NotAcceptable, "there is application/json and text/csv")
        })
    }
}

fn preferred(headers: &HeaderMap) -> Option<Format> {
    if !headers.contains_key(ACCEPT) {
        return Some(Format::Json);
    }
    let json = quality(headers, "application", "json");
    let csv = quality(headers, "text", "csv");
    if json == 0 && csv == 0 {
        None
    } else if csv > json {
        Some(Format::Csv)
    } else {
        Some(Format::Json)
    }
}

/// How much a client likes a media type, in thousandths: the most specific range decides
/// (RFC 9110, section 12.5.1).
fn quality(headers: &HeaderMap, kind: &str, subtype: &str) -> u16 {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let fitting = ranges.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_subtype) = parts.next()?.split_once('/')?;
        let specific = match (range_kind, range_subtype) {
            ("*", "*") => 0,
            (k, "*") if k.eq_ignore_ascii_case(kind) => 1,
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()))
        });
        Some((specific, weight.unwrap_or(1000)))
    });
    fitting.max().map_or(0, |(_, weight)| weight)
}

/// `0.75` as 750; what is not a weight is taken as none given.
fn thousandths(text: &str) -> u16 {
    match text.split_once('.').unwrap_or((text, "")) {
        ("0", digits) if digits.len() <= 3 => format!("{digits:0<3}").parse().unwrap_or(1000),
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(accept: &str) -> Option<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        preferred(&headers)
    }

    #[test]
    fn json_is_for_whoever_does_not_ask_for_csv() {
        assert_eq!(preferred(&HeaderMap::new()), Some(Format::Json));
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for accept in ["*/*", "application/json", "application/*", browser, "text/csv;q=0, */*"] {
            assert_eq!(of(accept), Some(Format::Json), "{accept}");
        }
    }

    #[test]
    fn csv_is_for_whoever_likes_it_more() {
        for accept in ["text/csv", "TEXT/CSV; header=present", "text/*", "text/csv, */*;q=0.1"] {
            assert_eq!(of(accept), Some(Format::Csv), "{accept}");
        }
        assert_eq!(of("application/json;q=0.5, text/csv;q=0.75"), Some(Format::Csv));
        assert_eq!(of("application/json;q=0.9, text/csv;q=0.75"), Some(Format::Json));
    }

    #[test]
    fn other_formats_are_not_there() {
        for accept in ["text/html", "image/*", "text/csv;q=0", "*/*;q=0.000", "nonsense", ""] {
            assert_eq!(of(accept), None, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(accept in "[ -~]{0,40}") {
            of(&accept);
        }
    }
}
