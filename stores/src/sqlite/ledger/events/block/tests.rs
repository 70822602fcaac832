use proptest::prelude::*;

use super::*;
use crate::sqlite::ledger::events::samples::counted;

fn pack(events: &[CountedEvent]) -> Vec<u8> {
    let mut packer = Packer::new().unwrap();
    events.iter().for_each(|event| packer.push(event).unwrap());
    packer.finish().unwrap()
}

proptest! {
    #[test]
    fn a_block_gives_back_its_events(
        places in proptest::collection::btree_map(0..i64::MAX as u64, 0..4_000_000_000_000_i64, 1..40),
    ) {
        let events: Vec<_> = places
            .into_iter()
            .rev()
            .map(|(offset, time)| counted(offset, time, (offset % 2 == 0).then_some("{}")))
            .collect();
        let mut unpacker = Unpacker::new().unwrap();
        let block = unpacker.unpack(&pack(&events)).unwrap();
        let mut read = Vec::new();
        let push = |event| { read.push(event); Ok(()) };
        unpacker.events(&block, push).unwrap();
        prop_assert_eq!(&read, &events);
        for event in &events {
            let offset = i64::try_from(event.offset.number()).unwrap();
            prop_assert_eq!(&unpacker.event(&block, offset).unwrap(), event);
        }
    }

    #[test]
    fn damage_is_an_error(
        place in 0..400_usize, flipped in 1..=255_u8, cut in 0..400_usize,
    ) {
        let events: Vec<_> = (0..9).map(|offset| counted(offset, 5, None)).collect();
        let whole = pack(&events);
        let mut body = whole.clone();
        let place = place % body.len();
        body[place] ^= flipped;
        let read = |body: &[u8]| {
            let mut unpacker = Unpacker::new()?;
            let block = unpacker.unpack(body)?;
            let mut read = Vec::new();
            unpacker.events(&block, |event| { read.push(event); Ok(()) })?;
            Ok::<_, rusqlite::Error>(read)
        };
        // A changed byte is noticed, or makes other events; never a panic.
        drop(read(&body));
        prop_assert!(read(&whole[..cut % whole.len()]).is_err());
    }
}

#[test]
fn what_claims_too_much_is_not_made_room_for() {
    let mut body = Vec::new();
    unsigned(u64::MAX, &mut body);
    assert!(Unpacker::new().unwrap().unpack(&body).is_err());
}

#[test]
fn what_was_pushed_before_a_failure_is_forgotten() {
    let mut packer = Packer::new().unwrap();
    packer.push(&counted(1, 2, None)).unwrap();
    packer.clear();
    packer.push(&counted(3, 4, None)).unwrap();
    assert_eq!(packer.finish().unwrap(), pack(&[counted(3, 4, None)]));
}

#[test]
fn a_block_is_full_by_events_or_by_bytes() {
    let mut packer = Packer::new().unwrap();
    let pushed = |packer: &mut Packer, note: Option<&str>| {
        let mut pushed = 0;
        while !packer.is_full() {
            packer.push(&counted(pushed, 0, note)).unwrap();
            pushed += 1;
        }
        packer.clear();
        pushed
    };
    assert_eq!(pushed(&mut packer, None), EVENTS_MAX as u64);
    assert!(pushed(&mut packer, Some(&"x".repeat(4096))) <= 17);
}
