//! What a request is known by, beside whatever is logged: its id, also in its answer and in problem
//! bodies, and its caller's trace.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use metering::accounts::uuid_at;
use metering::time::Timestamp;
use metering::trace::TraceParent;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static(TraceParent::HEADER);

/// Longer ones would only fill logs.
const BYTES_MAX: usize = 128;

tokio::task_local! {
    pub(crate) static NAMES: Names;
}

/// The id of the request that is being answered; `None` outside of one.
pub fn request_id() -> Option<Arc<str>> {
    NAMES.try_with(|names| names.id.text()).ok()
}

/// Where the request that is being answered stands in its caller's trace; `None` without one, and
/// outside of a request.
pub fn trace_parent() -> Option<TraceParent> {
    NAMES.try_with(|names| names.trace).ok().flatten()
}

#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) id: RequestId,
    trace: Option<TraceParent>,
}

impl Names {
    pub(crate) fn of(headers: &HeaderMap, now: Timestamp) -> Self {
        Self { id: RequestId::of(headers, now), trace: trace_of(headers) }
    }
}

/// Of several headers none is known to be the right one.
fn trace_of(headers: &HeaderMap) -> Option<TraceParent> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let only = given.next().filter(|_| given.next().is_none())?;
    TraceParent::parse(only.as_bytes())
}

/// Kept as it came or was made: most requests never need it as text.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    /// The client's own.
    Given(HeaderValue),
    /// Ours.
    Made(Uuid),
}

impl RequestId {
    /// The client's own id when it is of a sane form (it goes into logs), else a UUIDv7.
    fn of(headers: &HeaderMap, now: Timestamp) -> Self {
        let given = headers.get(X_REQUEST_ID).filter(|value| is_sane(value.as_bytes()));
        given.map_or_else(|| Self::Made(uuid_at(now)), |value| Self::Given(value.clone()))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        match self {
            Self::Given(value) => value.clone(),
            Self::Made(id) => {
                let mut text = [0; Hyphenated::LENGTH];
                let text = id.hyphenated().encode_lower(&mut text);
                // Digits and hyphens always make a header.
                HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
            }
        }
    }

    fn text(&self) -> Arc<str> {
        match self {
            // Sane ids are ASCII.
            Self::Given(value) => value.to_str().unwrap_or("-").into(),
            Self::Made(id) => id.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]).into(),
        }
    }
}

fn is_sane(id: &[u8]) -> bool {
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    !id.is_empty() && id.len() <= BYTES_MAX && id.iter().all(sane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        let long = "a".repeat(129);
        for (given, kept) in [("a-1.B_2", true), ("", false), ("a b", false), (&long, false)] {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(given).unwrap());
            let id = RequestId::of(&headers, Timestamp::from_millis(0));
            assert_eq!(&*id.text() == given, kept, "{given:?}");
            assert_eq!(id.header().to_str().unwrap(), &*id.text());
        }
    }
}
