//! Parameters that more than one call has.

use edge::Problem;
use metering::accounts::UserId;
use metering::time::{Day, Timestamp};
use metering::usage::RequestType;

/// An instant: RFC 3339, or a date, which is its first instant (UTC).
pub(super) fn instant(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let read = text.parse::<Day>().map(Day::start).or_else(|_| text.parse::<Timestamp>());
    read.map(Some).map_err(|_| {
        Problem::parameter(name, "must be a date or an RFC 3339 time such as 2026-10-31T23:59:59Z")
    })
}

/// `from` must be before `to`.
pub(super) fn in_order(from: Timestamp, to: Timestamp) -> Result<(), Problem> {
    if from < to { Ok(()) } else { Err(Problem::parameter("to", "must be later than from")) }
}

pub(super) fn user_id(text: Option<&str>) -> Result<Option<UserId>, Problem> {
    let read = text.map(str::parse).transpose();
    read.map_err(|_| Problem::parameter("user_id", "must be the id of a user"))
}

pub(super) fn request_type(text: Option<&str>) -> Result<Option<RequestType>, Problem> {
    text.map(str::parse).transpose().map_err(|()| {
        Problem::parameter("request_type", "must be chat, plagiarism or prompt_generation")
    })
}
