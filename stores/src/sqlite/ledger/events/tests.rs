use super::samples::{counted, empty};
use super::*;

/// Three flushes of 300, 10 and 500 records, of which every eleventh was not counted.
fn three_flushes() -> Connection {
    let open = empty();
    let (mut events, mut numbers) = (Events::new().unwrap(), Numbers::default());
    for range in [0..300, 300..310, 310..810] {
        let flush = Offset::new(range.start);
        let events_of = range.filter(|offset| offset % 11 != 0).map(|o| counted(o, time(o), None));
        let events_of: Vec<_> = events_of.collect();
        let flush = (flush, events_of.as_slice());
        events.insert(&open, &mut numbers, &mut Erased::default(), flush).unwrap();
    }
    open
}

/// Not in the order of the log.
fn time(offset: u64) -> i64 {
    1_790_812_800_000 + i64::try_from(offset * 37 % 1000).unwrap()
}

#[test]
fn events_are_found_between_any_two_offsets() {
    let open = three_flushes();
    for from in (0..820).step_by(13) {
        for end in (from..830).step_by(29) {
            let mut found = Vec::new();
            let push = |event: CountedEvent| {
                found.push(event.offset.number());
                Ok(())
            };
            between(&open, Offset::new(from), Offset::new(end), push).unwrap();
            found.sort_unstable();
            let expected = (from..end.min(810)).filter(|offset| offset % 11 != 0);
            assert!(found.into_iter().eq(expected), "{from}..{end}");
        }
    }
}

#[test]
fn events_are_found_between_any_two_times() {
    let open = three_flushes();
    let first = time(0);
    for (from, to) in [(0, 1), (0, 1000), (1, 500), (499, 501), (999, 2000), (-5, 0), (500, 500)] {
        let mut found = Vec::new();
        let push = |event: CountedEvent| {
            found.push(event.offset.number());
            Ok(())
        };
        occurred_in(&open, [first + from, first + to], push).unwrap();
        found.sort_unstable();
        let inside = |offset: &u64| (first + from..first + to).contains(&time(*offset));
        let expected = (0..810).filter(|offset| offset % 11 != 0).filter(inside);
        assert!(found.into_iter().eq(expected), "{from}..{to}");
    }
}
