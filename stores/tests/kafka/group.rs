//! Who reads which partition.

use std::collections::BTreeSet;
use std::time::Duration;

use metering::usage::{EventLog, EventSource, Offset, Partition};

use crate::appending::of_user;
use crate::both::Both;
use crate::contract::event_log::{NO_PATIENCE, stretch};
use crate::servers::kafka::made;

const DEADLINE: Duration = Duration::from_secs(30);

fn all_of(partitions: u32) -> BTreeSet<Partition> {
    (0..partitions).map(Partition::new).collect()
}

/// Waits until `both` owns what `holds` says; answers all that it owned on the way.
async fn owned(
    both: &Both,
    holds: impl Fn(&BTreeSet<Partition>) -> bool,
) -> Vec<BTreeSet<Partition>> {
    let mut seen = vec![BTreeSet::new()];
    let waited = async {
        while !holds(&seen[seen.len() - 1]) {
            seen.push(both.assigned(&seen[seen.len() - 1]).await);
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waited).await.is_ok(), "{seen:?}");
    seen
}

#[tokio::test]
async fn two_share_the_partitions_and_the_one_that_stays_gets_all() {
    let topic = made(4).await;
    let first = Both::joined(&topic.settings).await;
    owned(&first, |set| *set == all_of(4)).await;
    first.append((0..40).map(|user| of_user(user, "one")).collect(), None).await.unwrap();

    let second = Both::open(&topic.settings);
    let of_second = owned(&second, |set| set.len() == 2).await.pop().unwrap();
    let mut kept = first.assigned(&all_of(4)).await;
    while kept.len() != 2 {
        kept = first.assigned(&kept).await;
    }
    assert_eq!(&kept | &of_second, all_of(4));
    assert!(kept.is_disjoint(&of_second));
    let (mine, theirs) = (*kept.first().unwrap(), *of_second.first().unwrap());
    for (owner, other, partition) in [(&first, &second, mine), (&second, &first, theirs)] {
        let end = owner.end(partition).await.unwrap();
        let count = usize::try_from(end.number()).unwrap();
        assert!(count > 0);
        assert_eq!(stretch(owner, partition, Offset::default(), count).await.len(), count);
        let refused = other.read(partition, Offset::default(), 1, NO_PATIENCE).await.unwrap_err();
        assert!(refused.reason.contains("not assigned"), "{refused}");
    }

    tokio::task::spawn_blocking(move || drop(second)).await.unwrap();
    let seen = owned(&first, |set| *set == all_of(4)).await;
    let only_more = seen[1..].windows(2).all(|pair| pair[0].is_subset(&pair[1]));
    assert!(only_more, "cooperative: what is kept is never given back: {seen:?}");
    assert!(!stretch(&first, theirs, Offset::default(), 1).await.is_empty());
}

#[tokio::test]
async fn a_waiting_read_ends_when_its_partition_is_taken_away() {
    let topic = made(2).await;
    let first = Both::joined(&topic.settings).await;
    owned(&first, |set| *set == all_of(2)).await;
    let reading: Vec<_> =
        all_of(2).into_iter().map(|one| first.read(one, Offset::default(), 1, DEADLINE)).collect();
    let mut reading = reading.into_iter();
    let (one, other) = (reading.next().unwrap(), reading.next().unwrap());
    let second = Both::open(&topic.settings);
    let taken = tokio::time::timeout(DEADLINE, async {
        tokio::select! { refused = one => refused, refused = other => refused }
    });
    let refused = taken.await.unwrap().unwrap_err();
    assert!(refused.reason.contains("not assigned"), "{refused}");
    assert_eq!(first.assigned(&all_of(2)).await.len(), 1);
    drop(second);
}

#[tokio::test]
async fn a_partition_that_comes_back_is_read_from_where_it_is_asked_for() {
    let topic = made(1).await;
    let first = Both::joined(&topic.settings).await;
    first
        .append((0..6).map(|number| of_user(7, &format!("e{number}"))).collect(), None)
        .await
        .unwrap();
    stretch(&first, Partition::SINGLE, Offset::default(), 3).await;
    tokio::task::spawn_blocking(move || drop(first)).await.unwrap();
    // Another has read on; nobody has noted a position.
    for from in [5, 2] {
        let next = Both::joined(&topic.settings).await;
        let records = stretch(&next, Partition::SINGLE, Offset::new(from), 1).await;
        assert_eq!(records[0].offset, Offset::new(from));
        tokio::task::spawn_blocking(move || drop(next)).await.unwrap();
    }
}
