use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, EventId, Flags, Horizon, IdOrigin, Metadata, ModelName, Payload, RequestType,
    ReservationId, Tick, TokenCounts, UsageEvent,
};
use proptest::prelude::*;
use prost::Message;

use super::{Names, decode, encode, encode_delimited, encode_tick, payload, split_delimited};

/// The message of `proto/usage_event.proto` as prost itself derives it.
#[derive(Clone, PartialEq, Message)]
struct Derived {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    user_id: Vec<u8>,
    #[prost(string, tag = "3")]
    event_id: String,
    #[prost(int32, tag = "4")]
    request_type: i32,
    #[prost(string, tag = "5")]
    model: String,
    #[prost(uint32, tag = "6")]
    prompt_tokens: u32,
    #[prost(uint32, tag = "7")]
    completion_tokens: u32,
    #[prost(int64, tag = "8")]
    occurred_at: i64,
    #[prost(int64, tag = "9")]
    received_at: i64,
    #[prost(int64, tag = "10")]
    admitted_at: i64,
    #[prost(bytes = "vec", tag = "11")]
    id_digest: Vec<u8>,
    #[prost(bytes = "vec", tag = "12")]
    content_digest: Vec<u8>,
    #[prost(string, tag = "13")]
    plan: String,
    #[prost(int32, tag = "14")]
    id_origin: i32,
    #[prost(bool, tag = "15")]
    occurred_at_given: bool,
    #[prost(uint32, tag = "16")]
    cached_tokens: u32,
    #[prost(uint32, tag = "17")]
    reasoning_tokens: u32,
    #[prost(uint32, tag = "18")]
    flags: u32,
    #[prost(uint64, tag = "19")]
    over_hold: u64,
    #[prost(string, optional, tag = "20")]
    reservation_id: Option<String>,
    #[prost(string, optional, tag = "21")]
    metadata: Option<String>,
}

impl Derived {
    fn of(admitted: &AdmittedEvent) -> Self {
        let event = &admitted.event;
        Self {
            version: 1,
            user_id: event.user_id.as_bytes().to_vec(),
            event_id: event.event_id.as_str().to_owned(),
            request_type: match event.request_type {
                RequestType::Chat => 1,
                RequestType::Plagiarism => 2,
                RequestType::PromptGeneration => 3,
            },
            model: event.model.as_str().to_owned(),
            prompt_tokens: event.tokens.prompt,
            completion_tokens: event.tokens.completion,
            occurred_at: event.occurred_at.as_millis(),
            received_at: event.received_at.as_millis(),
            admitted_at: admitted.admitted_at.as_millis(),
            id_digest: admitted.id_digest.0.to_vec(),
            content_digest: admitted.content_digest.0.to_vec(),
            plan: admitted.plan.as_str().to_owned(),
            id_origin: i32::from(event.id_origin == IdOrigin::Server),
            occurred_at_given: event.occurred_at_given,
            cached_tokens: event.tokens.cached,
            reasoning_tokens: event.tokens.reasoning,
            flags: admitted.flags.bits().into(),
            over_hold: admitted.over_hold,
            reservation_id: event.reservation_id.as_ref().map(|id| id.as_str().to_owned()),
            metadata: event.metadata.as_ref().map(|text| text.as_str().to_owned()),
        }
    }
}

fn admitted(event: UsageEvent, plan: &str) -> AdmittedEvent {
    AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        plan: PlanName::new(plan),
        admitted_at: event.received_at.plus(std::time::Duration::from_millis(1)),
        flags: Flags::default(),
        over_hold: 0,
        event,
    }
}

fn plain() -> AdmittedEvent {
    let event = UsageEvent {
        user_id: UserId::from_bytes(*b"0123456789abcdef"),
        event_id: EventId::new("call-1").unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-4o"),
        tokens: TokenCounts { prompt: 100, completion: 20, cached: 0, reasoning: 0 },
        occurred_at: Timestamp::from_millis(1_790_000_000_000),
        occurred_at_given: false,
        received_at: Timestamp::from_millis(1_790_000_000_500),
        reservation_id: None,
        metadata: None,
    };
    admitted(event, "free")
}

fn full() -> AdmittedEvent {
    let mut full = plain();
    full.event.id_origin = IdOrigin::Server;
    full.event.request_type = RequestType::PromptGeneration;
    full.event.tokens.cached = 7;
    full.event.tokens.reasoning = 9;
    full.event.occurred_at_given = true;
    full.event.reservation_id = Some(ReservationId::new("hold-1").unwrap());
    full.event.metadata = Some(Metadata::from_stored(r#"{"team":"ä"}"#));
    full.flags = Flags::from_bits(2);
    full.over_hold = 300;
    full.content_digest = full.event.content_digest();
    full
}

/// A model that has the name of the other event's plan, and the other way round.
fn other_names() -> AdmittedEvent {
    let mut other = full();
    other.event.model = ModelName::new(full().plan.as_str());
    other.plan = PlanName::new(full().event.model.as_str());
    other
}

fn encoded(admitted: &AdmittedEvent) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(admitted, &mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

prop_compose! {
    fn any_event()(
        user in any::<[u8; 16]>(),
        event_id in "[^\0]{1,32}",
        server in any::<bool>(),
        request_type in 0..RequestType::ALL.len(),
        (model, plan) in (".{0,40}", ".{0,20}"),
        counts in any::<[u32; 4]>(),
        millis in [Timestamp::MIN.as_millis()..Timestamp::MAX.as_millis(), 0..10_i64, 0..1_i64],
        given in any::<bool>(),
        reservation in proptest::option::of("[^\0]{1,32}"),
        metadata in proptest::option::of(".{0,200}"),
        (flags, over_hold) in (any::<u8>(), any::<u64>()),
    ) -> AdmittedEvent {
        let [prompt, completion, cached, reasoning] = counts;
        let event = UsageEvent {
            user_id: UserId::from_bytes(user),
            event_id: EventId::new(&event_id).unwrap(),
            id_origin: if server { IdOrigin::Server } else { IdOrigin::Client },
            request_type: RequestType::ALL[request_type],
            model: ModelName::new(&model),
            tokens: TokenCounts { prompt, completion, cached, reasoning },
            occurred_at: Timestamp::from_millis(millis[0]),
            occurred_at_given: given,
            received_at: Timestamp::from_millis(millis[1]),
            reservation_id: reservation.map(|id| ReservationId::new(&id).unwrap()),
            metadata: metadata.map(Metadata::from_stored),
        };
        AdmittedEvent {
            admitted_at: Timestamp::from_millis(millis[2]),
            flags: Flags::from_bits(flags),
            over_hold,
            ..admitted(event, &plan)
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(admitted in any_event()) {
        prop_assert_eq!(decode(&encoded(&admitted)), Ok(admitted));
    }

    #[test]
    fn the_bytes_are_those_of_the_schema(admitted in any_event()) {
        let derived = Derived::of(&admitted).encode_to_vec();
        prop_assert_eq!(encoded(&admitted), derived);
    }

    #[test]
    fn garbage_is_never_an_event(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_damaged_record_is_read_as_something_or_refused(
        admitted in any_event(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&admitted);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(decode(&encoded(&read)), Ok(read));
        }
    }

    #[test]
    fn a_stream_gives_back_its_records(events in proptest::collection::vec(any_event(), 0..5)) {
        let mut bytes = b"before".to_vec();
        for event in &events {
            encode_delimited(event, &mut bytes);
        }
        let mut stream = &bytes[6..];
        for event in events {
            prop_assert_eq!(decode(split_delimited(&mut stream).unwrap()), Ok(event));
        }
        prop_assert!(stream.is_empty());
    }
}

#[test]
fn the_bytes_of_version_1_are_fixed_for_ever() {
    assert_eq!(hex(&encoded(&plain())), GOLDEN_PLAIN);
    assert_eq!(hex(&encoded(&full())), GOLDEN_FULL);
}

const GOLDEN_PLAIN: &str = "08011210303132333435363738396162636465661a0663616c6c2d3120012a066770742d346f306438144080d8c1a28c3448f4dbc1a28c3450f5dbc1a28c345a10720a5caaf760b0b8862a54aba63f40416208e102f44d952ef2366a0466726565";
const GOLDEN_FULL: &str = "08011210303132333435363738396162636465661a0663616c6c2d3120032a066770742d346f306438144080d8c1a28c3448f4dbc1a28c3450f5dbc1a28c345a10720a5caaf760b0b8862a54aba63f40416208216b60f1de1184276a0466726565700178018001078801099001029801ac02a20106686f6c642d31aa010d7b227465616d223a22c3a4227d";

#[test]
fn fields_of_a_newer_writer_are_passed_over() {
    let mut bytes = encoded(&full());
    bytes.extend([0xf8, 0x07, 0x01]); // field 127, a number
    bytes.extend([0x82, 0x08, 0x02, 0xff, 0xfe]); // field 128, bytes
    assert_eq!(decode(&bytes), Ok(full()));
}

#[test]
fn what_is_wrong_is_named() {
    let good = Derived::of(&full());
    let cases = [
        (Derived { version: 0, ..good.clone() }, "version 0 is not known"),
        (Derived { version: 2, ..good.clone() }, "version 2 is not known"),
        (Derived { user_id: vec![1; 15], ..good.clone() }, "user_id: 15 bytes, not 16"),
        (Derived { id_digest: vec![], ..good.clone() }, "id_digest: 0 bytes, not 16"),
        (Derived { content_digest: vec![0; 9], ..good.clone() }, "content_digest: 9 bytes, not 8"),
        (Derived { event_id: String::new(), ..good.clone() }, "event_id: must have 1 to 128 bytes"),
        (Derived { request_type: 0, ..good.clone() }, "request_type: 0"),
        (Derived { request_type: 4, ..good.clone() }, "request_type: 4"),
        (Derived { id_origin: 2, ..good.clone() }, "id_origin: 2"),
        (Derived { flags: 256, ..good.clone() }, "flags: 256"),
        (Derived { occurred_at: i64::MAX, ..good.clone() }, "occurred_at: 9223372036854775807"),
    ];
    for (message, reason) in cases {
        let error = decode(&message.encode_to_vec()).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error} does not say {reason}");
    }
    assert_eq!(decode(b"").unwrap_err().to_string(), "version 0 is not known");
    let bytes = encoded(&plain());
    let error = decode(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
    assert_eq!(error, "a length of 4 bytes where 3 are left");
}

#[test]
fn a_tick_is_told_from_an_event_and_from_what_nobody_knows() {
    let mut names = Names::default();
    for horizon in [Horizon::Ever, Horizon::Within(Duration::from_secs(86_400))] {
        let mut value = Vec::new();
        encode_tick(Tick { horizon }, &mut value);
        assert_eq!(payload(&value, &mut names), Payload::Tick(Tick { horizon }));
        assert!(decode(&value).is_err(), "it holds no event");
    }
    let unknown = [0x08, 0x03];
    assert!(matches!(payload(&unknown, &mut names), Payload::Undecodable { .. }));
}

#[test]
fn records_that_are_read_together_share_their_names() {
    let mut names = Names::default();
    let mut read = |event: &AdmittedEvent| match payload(&encoded(event), &mut names) {
        Payload::Event(read) if *read == *event => read,
        other => panic!("{event:?} was read as {other:?}"),
    };
    let (first, other, again) = (read(&full()), read(&other_names()), read(&full()));
    assert!(std::ptr::eq(first.event.model.as_str(), again.event.model.as_str()));
    assert!(std::ptr::eq(first.plan.as_str(), again.plan.as_str()));
    assert_ne!((&first.event.model, &first.plan), (&other.event.model, &other.plan));
}
