//! Takes a batch apart into events, each good or bad by itself.

use std::fmt;

use edge::{Code, Problem};
use metering::usage::{EventId, EventInput, read_event};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::EVENTS_MAX;

/// How the events stand in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON array.
    Array,
    /// A line each (NDJSON).
    Lines,
}

/// One event of a batch.
#[derive(Debug)]
pub(super) enum Item {
    Read(Box<EventInput>),
    Bad {
        /// As far as it could be read, so that the client finds its event.
        event_id: Option<EventId>,
        problem: Problem,
    },
}

/// The events of a body.
///
/// # Errors
/// 400 when an array is not JSON, 422 when it is not an array, 413 when there are too many. A bad line
/// is only a bad item.
pub(super) fn read(body: &[u8], format: Format) -> Result<Vec<Item>, Problem> {
    match format {
        Format::Array => read_array(body),
        Format::Lines => read_lines(body),
    }
}

fn read_array(body: &[u8]) -> Result<Vec<Item>, Problem> {
    let texts = match serde_json::from_slice::<Texts<'_>>(body) {
        Ok(Texts::Few(texts)) => texts,
        Ok(Texts::TooMany) => return Err(too_many()),
        Err(error) => return Err(not_an_array(body, &error)),
    };
    Ok(texts.into_iter().map(|text| read_item(text.get().as_bytes())).collect())
}

fn not_an_array(body: &[u8], error: &serde_json::Error) -> Problem {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => Problem::field("#", "wrong_type", "a batch must be a JSON array"),
        Err(_) => Problem::new(Code::MalformedJson, format!("the batch is not JSON: {error}")),
    }
}

fn read_lines(body: &[u8]) -> Result<Vec<Item>, Problem> {
    let lines = || {
        let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.filter(|line| !line.is_empty())
    };
    if lines().nth(EVENTS_MAX).is_some() {
        return Err(too_many());
    }
    Ok(lines().map(read_item).collect())
}

fn read_item(text: &[u8]) -> Item {
    #[derive(Deserialize)]
    struct Named {
        event_id: Option<String>,
    }
    match read_event(text) {
        Ok(input) => Item::Read(Box::new(input)),
        Err(rejection) => {
            let named = serde_json::from_slice::<Named>(text).ok();
            let event_id = named.and_then(|named| EventId::new(&named.event_id?).ok());
            Item::Bad { event_id, problem: rejection.into() }
        }
    }
}

fn too_many() -> Problem {
    let detail = format!("a batch must have at most {EVENTS_MAX} events");
    Problem::new(Code::TooManyEvents, detail)
}

/// The elements of an array, unread; never more than [`EVENTS_MAX`], since the smallest ones would
/// take eight times the body's memory.
enum Texts<'a> {
    Few(Vec<&'a RawValue>),
    TooMany,
}

impl<'de> Deserialize<'de> for Texts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Texts<'de>, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = elements.next_element::<&RawValue>()? {
            if texts.len() == EVENTS_MAX {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Texts::TooMany);
            }
            texts.push(text);
        }
        Ok(Texts::Few(texts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"event_id":"a","request_type":"chat","model":"m","prompt_tokens":1,"completion_tokens":2}"#;

    fn codes(body: &str, format: Format) -> Vec<Option<Code>> {
        let code = |item: &Item| match item {
            Item::Read(_) => None,
            Item::Bad { problem, .. } => Some(problem.code()),
        };
        read(body.as_bytes(), format).unwrap().iter().map(code).collect()
    }

    #[test]
    fn a_bad_element_or_line_is_bad_alone() {
        let bad = r#"{"event_id":"b","request_type":"chat"}"#;
        let array = format!("[{GOOD}, {bad}, 7, {GOOD}]");
        let invalid = Some(Code::InvalidRequest);
        assert_eq!(codes(&array, Format::Array), [None, invalid, invalid, None]);
        let lines = format!("{GOOD}\r\n{{\n\n  {bad}\n{GOOD}");
        let malformed = Some(Code::MalformedJson);
        assert_eq!(codes(&lines, Format::Lines), [None, malformed, invalid, None]);
        let items = read(array.as_bytes(), Format::Array).unwrap();
        let Item::Bad { event_id: Some(id), .. } = &items[1] else { panic!("{items:?}") };
        assert_eq!(id.as_str(), "b");
    }

    #[test]
    fn what_is_no_array_is_refused_whole() {
        for (body, code) in [
            ("", Code::MalformedJson),
            ("[1,", Code::MalformedJson),
            ("[1] 2", Code::MalformedJson),
            ("{}", Code::InvalidRequest),
            ("null", Code::InvalidRequest),
        ] {
            assert_eq!(read(body.as_bytes(), Format::Array).unwrap_err().code(), code, "{body}");
        }
    }

    #[test]
    fn one_event_more_than_allowed_is_too_many() {
        let most = "7\n".repeat(EVENTS_MAX);
        assert_eq!(codes(&most, Format::Lines).len(), EVENTS_MAX);
        let error = read(format!("{most}7").as_bytes(), Format::Lines).unwrap_err();
        assert_eq!(error.code(), Code::TooManyEvents);
        let array = format!("[{}7]", "7,".repeat(EVENTS_MAX));
        let error = read(array.as_bytes(), Format::Array).unwrap_err();
        assert_eq!(error.code(), Code::TooManyEvents);
    }

    proptest! {
        #[test]
        fn any_bytes_are_items_or_a_clients_error(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for format in [Format::Array, Format::Lines] {
                match read(&body, format) {
                    Ok(_) => {}
                    Err(problem) => prop_assert!(problem.code().status().is_client_error()),
                }
            }
        }

        #[test]
        fn an_array_and_lines_give_the_same_items(texts in proptest::collection::vec("[a-z{}\\[\\]:,\"0-9 ]{0,20}", 0..20)) {
            let valid = |text: &&String| serde_json::from_str::<IgnoredAny>(text).is_ok();
            let texts: Vec<&str> = texts.iter().filter(valid).map(|text| text.trim()).collect();
            let array = codes(&format!("[{}]", texts.join(",")), Format::Array);
            prop_assert_eq!(array, codes(&texts.join("\n"), Format::Lines));
        }
    }
}
