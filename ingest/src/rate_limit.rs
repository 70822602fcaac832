//! What is left of a plan: in bodies, and in the headers of draft-ietf-httpapi-ratelimit-headers.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};
use metering::quota::Standing;
use metering::time::{Period, Timestamp};
use metering::usage::RequestType;
use serde::Serialize;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// `usage` in answers: a user's tokens in the period of the event.
#[derive(Debug, Serialize)]
pub(crate) struct Usage {
    used: u64,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_date: Timestamp,
}

impl Usage {
    pub(crate) fn of(standing: &Standing, period: Period) -> Self {
        let (used, limit) = (standing.used.tokens, standing.token_limit);
        let remaining = limit.map(|limit| limit.saturating_sub(used));
        Self { used, limit, remaining, reset_date: period.end() }
    }
}

/// Seconds until the period's end, rounded up; 0 when it is over.
pub(crate) fn seconds_left(period: Period, now: Timestamp) -> u64 {
    period.end().since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// `RateLimit-Policy` and `RateLimit`: the tokens, and the requests of this type; none when both are
/// unlimited.
pub(crate) fn headers(
    standing: &Standing,
    request_type: RequestType,
    period: Period,
    now: Timestamp,
) -> Option<[(HeaderName, HeaderValue); 2]> {
    let requests = request_type.index();
    let limits = [
        ("tokens", standing.token_limit, standing.used.tokens),
        (
            request_type.counter(),
            standing.request_limits[requests],
            standing.used.requests[requests],
        ),
    ];
    if limits.iter().all(|(_, limit, _)| limit.is_none()) {
        return None;
    }
    let window = period.end().since(period.start()).as_secs();
    let left = seconds_left(period, now);
    let (mut policy, mut state) = (String::with_capacity(80), String::with_capacity(80));
    for (name, limit, used) in limits {
        let Some(limit) = limit else { continue };
        let comma = if policy.is_empty() { "" } else { ", " };
        let remaining = limit.saturating_sub(used);
        write!(policy, "{comma}\"{name}\";q={limit};w={window}").ok()?;
        write!(state, "{comma}\"{name}\";r={remaining};t={left}").ok()?;
    }
    Some([
        (RATELIMIT_POLICY, HeaderValue::try_from(policy).ok()?),
        (RATELIMIT, HeaderValue::try_from(state).ok()?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::quota::{PlanName, Totals};

    fn standing(tokens: Option<u64>, chats: Option<u64>) -> Standing {
        Standing {
            plan: PlanName::new("free"),
            used: Totals { tokens: 120, requests: [3, 0, 0] },
            token_limit: tokens,
            request_limits: [chats, Some(5), None],
        }
    }

    #[test]
    fn headers_name_the_limits_that_apply() {
        let now: Timestamp = "2026-11-30T23:59:58.500Z".parse().unwrap();
        let november = Period::of(now);
        let shown = |standing: &Standing, request_type| {
            headers(standing, request_type, november, now)
                .map(|pairs| pairs.map(|(_, value)| value.to_str().unwrap().to_owned()))
        };
        let both = shown(&standing(Some(100), Some(10)), RequestType::Chat).unwrap();
        assert_eq!(both[0], r#""tokens";q=100;w=2592000, "chat_messages";q=10;w=2592000"#);
        assert_eq!(both[1], r#""tokens";r=0;t=2, "chat_messages";r=7;t=2"#);
        let one = shown(&standing(None, None), RequestType::Plagiarism).unwrap();
        assert_eq!(one[1], r#""plagiarism_checks";r=5;t=2"#);
        assert_eq!(shown(&standing(None, None), RequestType::Chat), None);
    }
}
