//! The id of a request: in its answer, in problem bodies, and beside whatever is logged.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use metering::accounts::uuid_at;
use metering::time::Timestamp;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones would only fill logs.
const BYTES_MAX: usize = 128;

tokio::task_local! {
    pub(crate) static REQUEST_ID: Arc<str>;
}

/// The id of the request that is being answered; `None` outside of one.
pub fn request_id() -> Option<Arc<str>> {
    REQUEST_ID.try_with(Arc::clone).ok()
}

/// The client's own id when it is of a sane form (it goes into logs), else a UUIDv7.
pub(crate) fn of_request(headers: &HeaderMap, now: Timestamp) -> (Arc<str>, HeaderValue) {
    let given = headers.get(X_REQUEST_ID).filter(|value| is_sane(value.as_bytes()));
    if let Some(value) = given
        && let Ok(text) = value.to_str()
    {
        return (text.into(), value.clone());
    }
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text: &str = uuid_at(now).hyphenated().encode_lower(&mut text);
    let value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"));
    (text.into(), value)
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
            let (id, value) = of_request(&headers, Timestamp::from_millis(0));
            assert_eq!(&*id == given, kept, "{given:?}");
            assert_eq!(value.to_str().unwrap(), &*id);
        }
    }
}
