//! What one partition counts next, and how long it waits for more of it.

use std::time::Duration;

use metering::Unavailable;
use metering::usage::{LogRecord, Offset};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::counting::Counting;

/// Records of one flush. Larger ones make what was just tracked visible later; smaller ones pay more
/// often for a commit, and for the summaries of the same users.
const FLUSH_RECORDS_MAX: usize = 25_000;

/// Records of the flushes of all partitions together: this, and what the source prefetches, bounds the
/// memory that a backlog takes.
const ALL_FLUSHES_RECORDS_MAX: usize = 40_000;

/// So many records of each partition are held, however many partitions there are.
const FLUSH_RECORDS_MIN: usize = 500;

/// After which it is first looked whether more records have come; then after twice that, and so on.
const FIRST_PORTION: Duration = Duration::from_millis(10);

/// How often an idle counter hears of a new watermark, by which it forgets what never arrived.
const IDLE_SYNC: Duration = Duration::from_secs(1);

impl Counting {
    /// The next records to count; none after a moment without any, or when told to stop.
    pub(crate) async fn next_records(&mut self) -> Result<Vec<LogRecord>, Unavailable> {
        let patience = self.serving.patience().min(IDLE_SYNC);
        let is_stopping = self.is_stopping();
        let patience = if is_stopping { Duration::ZERO } else { patience };
        // Nobody waits for what is visible while admissions wait for what is counted.
        let at_once = is_stopping || self.serving.waits_for_counting();
        let whole = self.whole_flush();
        let mut stopping = self.stopping.clone();
        let mut records = std::mem::take(&mut self.ahead);
        if records.is_empty() {
            records = tokio::select! {
                records = self.read(self.cursor.position, whole, patience) => records?,
                _ = stopping.wait_for(|stop| *stop), if !is_stopping => return Ok(Vec::new()),
            };
        }
        if let Some(next_flush) = self.next_flush.filter(|_| !records.is_empty() && !at_once) {
            let more = |from, max| self.read(from, max, Duration::ZERO);
            gather(&mut records, whole, next_flush, stopping, more).await;
        }
        Ok(records)
    }

    /// How many records of this partition make a flush that waits for no more.
    pub(crate) fn whole_flush(&self) -> usize {
        share_of(self.aggregator.progress.count())
    }

    pub(crate) async fn read(
        &self,
        from: Offset,
        records_max: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        self.aggregator.source.read(self.partition, from, records_max, patience).await
    }
}

fn share_of(partitions: usize) -> usize {
    (ALL_FLUSHES_RECORDS_MAX / partitions.max(1)).clamp(FLUSH_RECORDS_MIN, FLUSH_RECORDS_MAX)
}

/// Adds what comes until the next flush is due, and reads a last time when told to stop. A whole flush
/// is due at once: a backlog comes in portions, each a moment after the one before.
async fn gather<Read: Future<Output = Result<Vec<LogRecord>, Unavailable>>>(
    records: &mut Vec<LogRecord>,
    whole: usize,
    next_flush: Instant,
    mut stopping: watch::Receiver<bool>,
    read: impl Fn(Offset, usize) -> Read,
) {
    let mut pause = FIRST_PORTION;
    while let (Some(last), count) = (records.last(), records.len())
        && count < whole
    {
        let next = last.offset.plus(1);
        let stop = stopping.wait_for(|stopping| *stopping);
        let wake = next_flush.min(Instant::now() + pause);
        // Whichever comes first.
        let stopped = tokio::time::timeout_at(wake, stop).await.is_ok();
        // What is there can be counted, whatever became of the rest.
        let Ok(portion) = read(next, whole - count).await else { return };
        records.extend(portion);
        if stopped || Instant::now() >= next_flush {
            return;
        }
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use metering::time::Timestamp;
    use metering::usage::{Horizon, Payload, Tick};

    use super::*;

    const PORTION: usize = 3_000;
    const BEAT: Duration = Duration::from_millis(500);

    fn records(from: Offset, count: usize) -> Vec<LogRecord> {
        let record = |number: usize| LogRecord {
            offset: from.plus(number.try_into().unwrap()),
            log_time: Timestamp::MIN,
            payload: Payload::Tick(Tick { horizon: Horizon::Ever }),
        };
        (0..count).map(record).collect()
    }

    /// What is gathered after one record, and how long it took.
    async fn gathered(
        stopping: bool,
        read: impl Fn(Offset, usize) -> Result<Vec<LogRecord>, Unavailable>,
    ) -> (Vec<LogRecord>, Duration) {
        let read = |from, max| std::future::ready(read(from, max));
        let (_stop, stopping) = watch::channel(stopping);
        let (started, mut found) = (Instant::now(), records(Offset::default(), 1));
        gather(&mut found, FLUSH_RECORDS_MAX, started + BEAT, stopping, read).await;
        assert!(found.windows(2).all(|two| two[0].offset.plus(1) == two[1].offset));
        (found, started.elapsed())
    }

    #[test]
    fn partitions_share_what_is_held() {
        assert_eq!(share_of(1), FLUSH_RECORDS_MAX);
        for partitions in 3..=ALL_FLUSHES_RECORDS_MAX / FLUSH_RECORDS_MIN {
            assert!(share_of(partitions) * partitions <= ALL_FLUSHES_RECORDS_MAX);
        }
        assert_eq!(share_of(100_000), FLUSH_RECORDS_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_that_comes_in_portions_does_not_wait_for_the_beat() {
        let began = Instant::now();
        // One portion every millisecond.
        let (found, took) = gathered(false, |from, max| {
            let there = began.elapsed().as_millis() * PORTION as u128;
            let left = there.saturating_sub(u128::from(from.number()));
            Ok(records(from, usize::try_from(left).unwrap().min(max)))
        })
        .await;
        assert_eq!(found.len(), FLUSH_RECORDS_MAX);
        assert!(took < BEAT / 10, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_records_wait_for_the_beat_and_for_each_other() {
        let (found, took) = gathered(false, |from, _| Ok(records(from, 1))).await;
        assert!((3..10).contains(&found.len()), "{}", found.len());
        assert_eq!(took, BEAT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_counted_when_the_log_is_away_or_the_process_ends() {
        let away = |_, _| Err(Unavailable::new("event_log", "away"));
        assert_eq!(gathered(false, away).await.0.len(), 1);
        let (found, took) = gathered(true, |from, _| Ok(records(from, 5))).await;
        assert_eq!((found.len(), took), (6, Duration::ZERO));
    }
}
