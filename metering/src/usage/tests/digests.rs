//! Vectors made with another implementation of BLAKE3: a change here makes every stored id unknown
//! and moves users to other partitions.

use std::num::NonZeroU32;

use crate::accounts::UserId;
use crate::usage::{
    ContentDigest, EventId, IdDigest, ModelName, Partition, RequestType, ReservationId, TokenCounts,
};

const COUNTING: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_digest_of_an_event_id_is_fixed() {
    let digest = |user, id: &str| {
        hex(&IdDigest::of_event(UserId::from_bytes(user), &EventId::new(id).unwrap()).0)
    };
    assert_eq!(digest(COUNTING, "evt-1"), "afff79c9fdaf171c0d7316cb67158265");
    assert_eq!(digest([0xff; 16], &"x".repeat(128)), "a88a21c45c5559ebef022a71f875a995");
}

#[test]
fn a_hold_never_has_the_digest_of_an_event() {
    let user = UserId::from_bytes(COUNTING);
    let hold = IdDigest::of_hold(user, &ReservationId::new("evt-1").unwrap());
    assert_eq!(hex(&hold.0), "d8c04add499a5a1e6478904cd9039fd6");
    assert_ne!(hold, IdDigest::of_event(user, &EventId::new("evt-1").unwrap()));
}

#[test]
fn the_digest_of_content_is_fixed() {
    let digest = |request_type, model, [prompt, completion, cached, reasoning]: [u32; 4]| {
        let tokens = TokenCounts { prompt, completion, cached, reasoning };
        hex(&ContentDigest::of_event(request_type, &ModelName::new(model), tokens).0)
    };
    assert_eq!(digest(RequestType::Chat, "gpt-4", [100, 20, 7, 3]), "70001e1d157588b4");
    let largest = [1_000_000_000, 0, 0, 0];
    assert_eq!(digest(RequestType::PromptGeneration, "gpt-3.5-turbo", largest), "c05d362ff365ceaa");
    let model = ModelName::new("gpt-4");
    let hold = ContentDigest::of_hold(RequestType::Plagiarism, &model, 5000);
    assert_eq!(hex(&hold.0), "d674ad73637e061b");
}

#[test]
fn each_part_of_the_content_changes_its_digest() {
    let tokens = TokenCounts { prompt: 10, completion: 10, cached: 5, reasoning: 5 };
    let (chat, model) = (RequestType::Chat, ModelName::new("gpt-4"));
    let digest = ContentDigest::of_event(chat, &model, tokens);
    let others = [
        ContentDigest::of_event(RequestType::Plagiarism, &model, tokens),
        ContentDigest::of_event(chat, &ModelName::new("gpt-4o"), tokens),
        ContentDigest::of_event(chat, &model, TokenCounts { prompt: 11, ..tokens }),
        ContentDigest::of_event(chat, &model, TokenCounts { completion: 11, ..tokens }),
        ContentDigest::of_event(chat, &model, TokenCounts { cached: 6, ..tokens }),
        ContentDigest::of_event(chat, &model, TokenCounts { reasoning: 6, ..tokens }),
    ];
    for (place, other) in others.into_iter().enumerate() {
        assert_ne!(other, digest, "part {place}");
    }
}

#[test]
fn the_partition_of_a_user_is_fixed() {
    let partitions = |user| {
        [1, 8, 16, 64].map(|count| {
            Partition::of(UserId::from_bytes(user), NonZeroU32::new(count).unwrap()).number()
        })
    };
    assert_eq!(partitions(COUNTING), [0, 0, 0, 48]);
    assert_eq!(partitions([0xff; 16]), [0, 7, 7, 7]);
    assert_eq!(partitions([0; 16]), [0, 3, 11, 11]);
}
