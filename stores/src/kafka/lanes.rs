//! One batch of each partition at a time: what comes meanwhile waits, and goes out together.
//!
//! The client library sends a partition's records in a request of their own, and requests are what
//! a broker's time goes for. So an idle partition sends at once, and a busy one few and large
//! batches, without a timer that would hold up every answer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use metering::Unavailable;
use metering::usage::Partition;

/// A lane for each partition.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: Vec<Mutex<Lane<T>>>,
}

#[derive(Debug)]
struct Lane<T> {
    on_the_way: usize,
    /// Why one of those on the way did not arrive.
    failed: Option<Unavailable>,
    waiting: Vec<T>,
}

/// What becomes of those who waited.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// They are on their way now: the caller sends them.
    Go(Vec<T>),
    /// They would meet what the batch before them has met. Sent one after the other, each batch would
    /// take as long to fail, and the last of them longer than anybody waits.
    Fail(Vec<T>, Unavailable),
}

impl<T> Lanes<T> {
    pub(super) fn of(partitions: usize) -> Self {
        let lane = || Lane { on_the_way: 0, failed: None, waiting: Vec::new() };
        Self { lanes: (0..partitions.max(1)).map(|_| Mutex::new(lane())).collect() }
    }

    /// Answers what is on its way now, all or nothing: the caller sends it.
    pub(super) fn enter(&self, partition: Partition, more: Vec<T>) -> Vec<T> {
        let mut lane = self.lane(partition);
        if lane.on_the_way == 0 {
            lane.on_the_way = more.len();
            return more;
        }
        lane.waiting.extend(more);
        Vec::new()
    }

    /// One of those on the way has come to its end. The last of a batch lets the next go.
    pub(super) fn leave(&self, partition: Partition, failed: Option<Unavailable>) -> Next<T> {
        let mut lane = self.lane(partition);
        lane.on_the_way = lane.on_the_way.saturating_sub(1);
        lane.failed = lane.failed.take().or(failed);
        if lane.on_the_way > 0 {
            return Next::Go(Vec::new());
        }
        let waiting = std::mem::take(&mut lane.waiting);
        if let Some(error) = lane.failed.take() {
            return Next::Fail(waiting, error);
        }
        lane.on_the_way = waiting.len();
        Next::Go(waiting)
    }

    fn lane(&self, partition: Partition) -> MutexGuard<'_, Lane<T>> {
        let number = usize::try_from(partition.number()).unwrap_or(0);
        self.lanes[number % self.lanes.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::unavailable;

    const HERE: Partition = Partition::SINGLE;

    const NONE: [i32; 0] = [];

    fn gone(next: Next<i32>) -> Vec<i32> {
        match next {
            Next::Go(items) => items,
            Next::Fail(items, error) => panic!("{items:?} failed: {error}"),
        }
    }

    #[test]
    fn what_comes_while_a_batch_is_on_its_way_goes_out_together() {
        let lanes = Lanes::of(2);
        assert_eq!(lanes.enter(HERE, vec![1, 2]), [1, 2]);
        assert_eq!(lanes.enter(HERE, vec![3]), NONE);
        assert_eq!(lanes.enter(HERE, vec![4, 5]), NONE);
        assert_eq!(gone(lanes.leave(HERE, None)), NONE);
        assert_eq!(gone(lanes.leave(HERE, None)), [3, 4, 5]);
        assert_eq!(lanes.enter(HERE, vec![6]), NONE, "three are on their way");
    }

    #[test]
    fn partitions_do_not_wait_for_each_other() {
        let lanes = Lanes::of(2);
        assert_eq!(lanes.enter(HERE, vec![1]), [1]);
        assert_eq!(lanes.enter(Partition::new(1), vec![2]), [2]);
    }

    #[test]
    fn who_waits_behind_a_failure_fails_with_it_and_the_next_is_tried_again() {
        let lanes = Lanes::of(1);
        assert_eq!(lanes.enter(HERE, vec![1, 2]), [1, 2]);
        assert_eq!(lanes.enter(HERE, vec![3]), NONE);
        assert_eq!(gone(lanes.leave(HERE, Some(unavailable("away")))), NONE);
        let Next::Fail(failed, error) = lanes.leave(HERE, None) else { panic!("it went") };
        assert_eq!((failed, &*error.reason), (vec![3], "away"));
        assert_eq!(lanes.enter(HERE, vec![4]), [4]);
        assert_eq!(gone(lanes.leave(HERE, None)), NONE);
    }
}
