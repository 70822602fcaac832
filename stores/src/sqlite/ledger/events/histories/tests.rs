use std::collections::BTreeSet;

use proptest::prelude::*;
use rusqlite::TransactionBehavior;

use super::*;
use crate::sqlite::ledger::events::samples::empty;
use crate::sqlite::ledger::history::NEWEST;

fn entry(user: i64, occurred_at: i64, offset: i64) -> Entry {
    let (model, request_type) = (1 + offset % 5, u8::try_from(offset % 3).unwrap());
    Entry { user, occurred_at, offset, block: offset - offset % 7, model, request_type }
}

/// As a flush does it.
fn flush(open: &mut Connection, mut entries: Vec<Entry>) {
    entries.sort_unstable();
    let step = open.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    add(&step, &entries).unwrap();
    merge_some(&step, entries.len()).unwrap();
    step.commit().unwrap();
}

fn history(open: &Connection, user: i64, before: Position) -> Vec<Entry> {
    newest_first(open, user, before).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

/// What every run holds, whoever's it is.
fn stored(open: &Connection) -> Vec<Entry> {
    let mut all = Vec::new();
    each(open, |entry| all.push(*entry)).unwrap();
    all.sort_unstable();
    all
}

fn runs(open: &Connection) -> i64 {
    open.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn histories_hold_every_entry_once_in_order_at_every_step(
        flushes in proptest::collection::vec((1..900_i64, 1..40_i64, -50..50_i64), 1..24),
    ) {
        let mut open = empty();
        let mut expected: BTreeSet<Entry> = BTreeSet::new();
        for (size, users, time) in flushes {
            let first = i64::try_from(expected.len()).unwrap();
            let entries: Vec<_> = (first..first + size)
                .map(|offset| entry(offset * 7 % users, time + offset * 13 % 31, offset))
                .collect();
            expected.extend(&entries);
            flush(&mut open, entries);
            prop_assert!(stored(&open).iter().eq(&expected));
            for user in [0, users / 2, users] {
                for before in [NEWEST, (time + 15, first), (time, 0)] {
                    let mut of_user: Vec<_> = expected.iter().copied().collect();
                    of_user.retain(|one| one.user == user && one.position() < before);
                    of_user.reverse();
                    prop_assert_eq!(history(&open, user, before), of_user);
                }
            }
        }
    }

    #[test]
    fn a_stretch_says_again_what_it_was_told(
        places in proptest::collection::btree_map(
            (any::<i32>(), 0..i64::MAX), (0..i64::MAX, 0..i64::MAX >> 3, 0..3_u8), 1..50,
        ),
    ) {
        let entries: Vec<_> = places
            .into_iter()
            .map(|((occurred_at, offset), (block, model, request_type))| {
                Entry { user: 5, occurred_at: occurred_at.into(), offset, block, model, request_type }
            })
            .collect();
        let (mut bytes, mut read) = (Vec::new(), Vec::new());
        stretch::encode(&entries, &mut bytes);
        stretch::decode(5, entries[0].position(), &bytes, &mut read).unwrap();
        prop_assert_eq!(&read, &entries);
        bytes.pop();
        prop_assert!(stretch::decode(5, entries[0].position(), &bytes, &mut read).is_err());
    }

    #[test]
    fn a_damaged_stretch_is_an_error_or_other_entries(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut read = Vec::new();
        if stretch::decode(5, (0, 0), &bytes, &mut read).is_ok() {
            prop_assert!(read.len() <= bytes.len() / 4);
        }
    }
}

#[test]
fn flushes_of_any_size_leave_few_runs() {
    let mut open = empty();
    let mut offset = 0;
    for number in 0..3000 {
        // Single events, and a large flush now and then.
        let size = if number % 100 == 99 { 2000 } else { 1 };
        flush(&mut open, (offset..offset + size).map(|o| entry(o % 50, o, o)).collect());
        offset += size;
        let tiers = i64::from((offset + 3).ilog(4)) + 1;
        assert!(runs(&open) <= 8 * tiers, "{} runs of {offset} entries", runs(&open));
    }
    assert_eq!(stored(&open).len(), usize::try_from(offset).unwrap());
    // Nothing more comes, but flushes of nothing: what is under way ends.
    for _ in 0..1000 {
        flush(&mut open, vec![]);
    }
    let merging = "SELECT count(*) FROM runs WHERE merging_into IS NOT NULL";
    assert_eq!(open.query_row(merging, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert!(runs(&open) <= 3 * i64::from(offset.ilog(4) + 1), "{} runs", runs(&open));
}

#[test]
fn one_users_long_history_is_merged_in_pieces() {
    let mut open = empty();
    for number in 0..40 {
        flush(&mut open, (number * 1000..(number + 1) * 1000).map(|o| entry(1, -o, o)).collect());
    }
    let offsets: Vec<_> = history(&open, 1, NEWEST).iter().map(|entry| entry.offset).collect();
    assert!(offsets.into_iter().eq(0..40_000));
}

#[test]
fn a_history_out_of_order_ends_a_merge_with_an_error() {
    let mut open = empty();
    // More in each of four runs than a step takes; then every entry claims to be later than all.
    for number in 0..3 {
        flush(&mut open, (number * 4000..(number + 1) * 4000).map(|o| entry(1, o, o)).collect());
    }
    let last: Vec<_> = (12_000..16_000).map(|o| entry(1, o, o)).collect();
    let step = open.transaction().unwrap();
    add(&step, &last).unwrap();
    let far =
        format!("UPDATE stretches SET entries = x'ffffffff0f000004{}'", "00000004".repeat(127));
    step.execute(&far, []).unwrap();
    let error = merge_some(&step, 4000).unwrap_err();
    assert!(error.to_string().contains("out of order"), "{error}");
}
