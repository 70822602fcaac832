use async_trait::async_trait;
use metering::usage::{Offset, OffsetRange, Partition, PartitionBook, Tallies};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A ledger whose tallies move on while its books are read.
struct Kept {
    partitions: Vec<PartitionBook>,
    reads: AtomicUsize,
    raw: RawBook,
    statistics: Vec<Difference>,
}

fn partition(end: u64, counted: u64, duplicates: u64, dead_letters: u64) -> PartitionBook {
    PartitionBook {
        partition: Partition::SINGLE,
        range: OffsetRange { start: Offset::new(10), end: Offset::new(end) },
        tallies: Tallies { counted, duplicates, dead_letters, ..Tallies::default() },
    }
}

fn kept() -> Kept {
    let raw = RawBook { events: 7, tokens: 700, statistics_tokens: 700, statistics_requests: 7 };
    let partitions = vec![partition(20, 7, 2, 1)];
    Kept { partitions, reads: AtomicUsize::new(0), raw, statistics: Vec::new() }
}

#[async_trait]
impl Books for Kept {
    async fn partitions(&self) -> Result<Vec<PartitionBook>, Unavailable> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(vec![self.partitions[read.min(self.partitions.len() - 1)]])
    }

    async fn raw(&self) -> Result<RawBook, Unavailable> {
        Ok(self.raw)
    }

    async fn summaries(&self) -> Result<(u64, Vec<Difference>), Unavailable> {
        Ok((30, Vec::new()))
    }

    async fn statistics(&self) -> Result<(u64, Vec<Difference>), Unavailable> {
        Ok((3, self.statistics.clone()))
    }

    async fn repair(&self) -> Result<(), Unavailable> {
        Err(Unavailable::new("kept", "nothing is repaired here"))
    }
}

async fn unbalanced(ledger: &Kept) -> Vec<String> {
    let books = books(ledger).await.unwrap();
    assert_eq!(books.len(), 4);
    let differences = books.iter().flat_map(|book| {
        book.differences.iter().map(|one| format!("{} {one:?}", book.name)).collect::<Vec<_>>()
    });
    differences.map(|text| text.replace("Difference { subject: ", "").replace(" }", "")).collect()
}

#[tokio::test]
async fn good_books_balance() {
    assert_eq!(unbalanced(&kept()).await, [""; 0]);
    let report = Report::from(books(&kept()).await.unwrap());
    assert!(report.balanced);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[tokio::test]
async fn a_record_that_became_nothing_is_a_difference_of_r1() {
    let ledger = Kept { partitions: vec![partition(21, 7, 2, 1)], ..kept() };
    assert_eq!(unbalanced(&ledger).await, [r#"R1 "partition 0", expected: 11, found: 10"#]);
}

#[tokio::test]
async fn an_event_too_many_or_too_few_is_a_difference_of_r2() {
    let more = RawBook { events: 8, statistics_requests: 8, ..kept().raw };
    let ledger = Kept { raw: more, ..kept() };
    assert_eq!(unbalanced(&ledger).await, [r#"R2 "events", expected: 7, found: 8"#]);
    let other = RawBook { statistics_tokens: 699, ..kept().raw };
    let ledger = Kept { raw: other, ..kept() };
    let expected = r#"R2 "tokens of the statistics", expected: 700, found: 699"#;
    assert_eq!(unbalanced(&ledger).await, [expected]);
}

#[tokio::test]
async fn what_is_counted_while_books_are_read_is_no_difference() {
    let raw = RawBook { events: 9, tokens: 900, statistics_tokens: 900, statistics_requests: 9 };
    let partitions = vec![partition(20, 7, 2, 1), partition(25, 12, 2, 1)];
    assert_eq!(unbalanced(&Kept { partitions, raw, ..kept() }).await, [""; 0]);
}

#[tokio::test]
async fn differences_of_the_ledgers_own_comparisons_are_told() {
    let statistics =
        vec![Difference { subject: "user 1".to_owned(), expected: 5, found: i128::from(-1) }];
    let ledger = Kept { statistics, ..kept() };
    assert_eq!(unbalanced(&ledger).await, [r#"R4 "user 1", expected: 5, found: -1"#]);
}
