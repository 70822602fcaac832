//! One request, sent until there is an answer that is not "perhaps".

use serde_json::Value;

use crate::http::{Answer, Http};
use crate::waiting::eventually;

/// The answer, and whether the request was sent more than once.
#[track_caller]
pub(crate) fn ask(door: &Http, path: &str, body: &Value) -> (Answer, bool) {
    let mut times = 0;
    let answer = eventually("a request is answered", || {
        times += 1;
        door.try_call("POST", path, Some(body)).ok().filter(|answer| answer.status != 503)
    });
    (answer, times > 1)
}

/// The answer's body, when its status is as expected.
#[track_caller]
pub(crate) fn expect(door: &Http, path: &str, body: &Value, status: u16) -> Value {
    ask(door, path, body).0.expect(status)
}
