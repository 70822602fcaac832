use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::quota::{OverLimit, PlanName, Refused, Tier, Trust};
use crate::usage::{ContentDigest, RequestType};

fn now() -> Timestamp {
    Timestamp::from_millis(1_791_000_000_000)
}

fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

fn october() -> Period {
    "2026-10".parse().unwrap()
}

fn terms(token_limit: Option<u64>) -> Terms {
    Terms {
        version: 1,
        plan: PlanName::new("tested"),
        token_limit,
        request_limits: [None; 3],
        tier: Tier(0),
        over_limit: OverLimit::Reject,
        valid_until: None,
    }
}

fn event(user_id: UserId, name: u32, tokens: u64) -> Admission {
    let mut id_digest = IdDigest([0; 16]);
    id_digest.0[..4].copy_from_slice(&name.to_le_bytes());
    Admission {
        user_id,
        period: october(),
        id_digest,
        content_digest: ContentDigest(tokens.to_le_bytes()),
        request_type: RequestType::Chat,
        tokens,
        tier: Tier(0),
        trust: Trust::User,
        settles: None,
        barred: false,
    }
}

/// A counter of one partition, open at 0.
fn open() -> Counter {
    let mut counter = Counter::new(NonZeroU32::MIN);
    counter.open(Partition::SINGLE, Offset::new(0), now());
    counter
}

fn seed(counter: &mut Counter, user: UserId, token_limit: Option<u64>) {
    counter.seed_terms(user, terms(token_limit));
    counter.seed_totals(user, october(), Totals::default(), Offset::new(0));
}

fn synced(partition: Partition, cursor: u64, watermark: Timestamp) -> Synced {
    let cursor = Offset::new(cursor);
    Synced { partition, cursor, watermark, totals: vec![], settled: vec![] }
}

#[test]
fn a_miss_names_exactly_what_is_missing() {
    let mut counter = open();
    let asked = event(user(1), 1, 1);
    let missing = |counter: &mut Counter| counter.admit(&asked, now()).unwrap_err();
    assert_eq!(missing(&mut counter), Miss::Seeds { terms: true, totals: true });
    counter.seed_terms(user(1), terms(None));
    assert_eq!(missing(&mut counter), Miss::Seeds { terms: false, totals: true });
    counter.seed_totals(user(1), october(), Totals::default(), Offset::new(0));
    assert!(matches!(counter.admit(&asked, now()), Ok(Verdict::Granted(_))));
    let expired = Terms { version: 2, valid_until: Some(now()), ..terms(None) };
    counter.set_terms(user(1), Some(expired)).unwrap();
    assert_eq!(missing(&mut counter), Miss::Seeds { terms: true, totals: false });
}

#[test]
fn seeded_totals_do_not_replace_what_is_there() {
    let mut counter = open();
    seed(&mut counter, user(1), Some(100));
    counter.admit(&event(user(1), 1, 60), now()).unwrap();
    let other = Totals { tokens: 1, requests: [1, 0, 0] };
    counter.seed_totals(user(1), october(), other, Offset::new(9));
    let standing = counter.usage(user(1), october(), now()).unwrap().unwrap();
    assert_eq!(standing.used.tokens, 60);
}

#[test]
fn users_without_entries_leave_when_there_are_too_many() {
    let mut counter = open().with_users_max(10);
    for number in 0..200 {
        seed(&mut counter, user(number), None);
        assert!(counter.users() <= 10, "{} users", counter.users());
    }
    let last = counter.usage(user(199), october(), now());
    assert!(last.is_ok(), "whoever came last is still there");
}

#[test]
fn who_has_something_in_flight_stays() {
    let mut counter = open().with_users_max(10);
    for number in 0..50 {
        seed(&mut counter, user(number), None);
        counter.admit(&event(user(number), 1, 7), now()).unwrap();
    }
    for number in 50..250 {
        seed(&mut counter, user(number), None);
    }
    for number in 0..50 {
        let standing = counter.usage(user(number), october(), now()).unwrap().unwrap();
        assert_eq!(standing.used.tokens, 7);
    }
    assert!(counter.users() <= 100, "{} users", counter.users());
}

#[test]
fn a_backfill_of_many_months_keeps_few_of_them() {
    let mut counter = open();
    seed(&mut counter, user(1), None);
    counter.admit(&event(user(1), 1, 7), now()).unwrap();
    for number in 0..300 {
        let period = Period::from_number(number);
        counter.seed_totals(user(1), period, Totals::default(), Offset::new(0));
        assert!(counter.usage(user(1), period, now()).is_ok());
    }
    assert!(counter.audit().unwrap().len() <= 10);
    let standing = counter.usage(user(1), october(), now()).unwrap().unwrap();
    assert_eq!(standing.used.tokens, 7);
}

#[test]
fn partitions_open_move_and_forget_alone() {
    let count = NonZeroU32::new(2).unwrap();
    let mut counter = Counter::new(count);
    let of = |number| {
        let partition = Partition::new(number);
        (0..).map(user).find(|user| Partition::of(*user, count) == partition).unwrap()
    };
    let (one, other) = (of(0), of(1));
    counter.open(Partition::new(0), Offset::new(0), now());
    seed(&mut counter, one, None);
    let closed = Closed(Partition::new(1));
    assert_eq!(counter.admit(&event(other, 1, 1), now()), Err(Miss::Closed(closed)));
    assert_eq!(counter.audit(), Err(closed));
    counter.open(Partition::new(1), Offset::new(0), now());
    seed(&mut counter, other, None);
    counter.admit(&event(one, 1, 1), now()).unwrap();
    counter.sync(&synced(Partition::new(1), 5, now())).unwrap();
    let cursor_of = |counter: &mut Counter, user| match counter.admit(&event(user, 2, 1), now()) {
        Ok(Verdict::Granted(grant)) => grant.cursor.number(),
        other => panic!("{other:?}"),
    };
    assert_eq!((cursor_of(&mut counter, one), cursor_of(&mut counter, other)), (0, 5));
    counter.open(Partition::new(1), Offset::new(9), now());
    let standing = counter.usage(one, october(), now()).unwrap().unwrap();
    assert_eq!(standing.used.tokens, 2);
    assert!(counter.usage(other, october(), now()).is_err());
}

#[test]
fn a_partition_that_does_not_exist_is_never_open() {
    let mut counter = Counter::new(NonZeroU32::MIN);
    let beyond = Partition::new(7);
    counter.open(beyond, Offset::new(0), now());
    assert_eq!(counter.sync(&synced(beyond, 1, now())), Err(Closed(beyond)));
}

/// One of the things that change what is in flight.
#[derive(Clone, Debug)]
enum Step {
    Admit { name: u32, tokens: u64, settles: bool },
    Hold { tokens: u64, lasts: u64 },
    Release,
    Leave(u32),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8u32, 0..30u64, any::<bool>())
            .prop_map(|(name, tokens, settles)| Step::Admit { name, tokens, settles }),
        1 => (0..40u64, 1..30u64).prop_map(|(tokens, lasts)| Step::Hold { tokens, lasts }),
        1 => Just(Step::Release),
        2 => (0..8u32).prop_map(Step::Leave),
        2 => (0..12u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Running sums and the bounds on age are only shortcuts: they agree with a count of the entries.
    #[test]
    fn sums_are_those_of_the_entries(steps in steps()) {
        let mut counter = open();
        seed(&mut counter, user(1), Some(100));
        let (mut clock, hold_id) = (now(), IdDigest([9; 16]));
        for step in steps {
            match step {
                Step::Admit { name, tokens, settles } => {
                    let settles = settles.then_some(hold_id);
                    let asked = Admission { settles, ..event(user(1), name, tokens) };
                    counter.admit(&asked, clock).unwrap();
                }
                Step::Hold { tokens, lasts } => {
                    let asked = Hold {
                        user_id: user(1),
                        period: october(),
                        id_digest: hold_id,
                        content_digest: ContentDigest(tokens.to_le_bytes()),
                        request_type: RequestType::Chat,
                        tokens,
                        tier: Tier(0),
                        expires_at: clock.plus(Duration::from_secs(lasts)),
                    };
                    counter.hold(&asked, clock).unwrap();
                }
                Step::Release => drop(counter.release(user(1), &hold_id, clock).unwrap()),
                Step::Leave(name) => {
                    let Admission { user_id, period, id_digest, .. } = event(user(1), name, 0);
                    counter.withdraw(&[Settled { user_id, period, id_digest }]).unwrap();
                }
                Step::Pass(seconds) => {
                    clock = clock.plus(Duration::from_secs(seconds));
                    counter.sync(&synced(Partition::SINGLE, 0, clock)).unwrap();
                }
            }
            let used = counter.usage(user(1), october(), clock).unwrap().unwrap().used;
            let entries = counter.audit().unwrap().remove(0).in_flight;
            prop_assert_eq!(used.tokens, entries.iter().map(|entry| entry.tokens).sum::<u64>());
            prop_assert_eq!(used.requests[0], entries.len() as u64);
            prop_assert!(used.tokens <= 100);
            let age_max = Duration::from_secs(15);
            for entry in entries {
                let in_time = match entry.hold_expires_at {
                    Some(end) => clock < end,
                    None => entry.admitted_at.plus(age_max) >= clock,
                };
                prop_assert!(in_time, "{:?} at {}", entry, clock);
            }
        }
    }
}

#[test]
fn an_admission_costs_the_same_however_much_is_in_flight() {
    let mut counter = open();
    seed(&mut counter, user(1), Some(1_000_000));
    for name in 0..200_000 {
        let verdict = counter.admit(&event(user(1), name, 1), now()).unwrap();
        assert!(matches!(verdict, Verdict::Granted(_)));
    }
    // Full scans would take hours here; nothing is old enough for one.
    for name in 200_000..400_000 {
        let verdict = counter.admit(&event(user(1), name, 900_000), now()).unwrap();
        assert!(matches!(verdict, Verdict::Refused(Refused::TokenLimit, _)));
    }
}
