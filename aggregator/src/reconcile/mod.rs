//! Books that balance: the same figures, kept in several places, are compared.

mod counter;

use std::time::Duration;

use metering::Unavailable;
use metering::usage::{Books, Difference, Partition, RawBook};
use serde::{Deserialize, Serialize};

use crate::run::Aggregator;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// `R1` to `R5`; also the metric's label.
    pub name: String,
    /// What is compared, for people.
    pub what: String,
    /// How many figures were compared.
    pub compared: u64,
    /// Those that differ, at most some hundred.
    pub differences: Vec<Difference>,
}

impl Book {
    fn new(name: &str, what: &str) -> Self {
        let (name, what) = (name.to_owned(), what.to_owned());
        Self { name, what, compared: 0, differences: Vec::new() }
    }

    /// Whether all figures agree.
    pub fn balances(&self) -> bool {
        self.differences.is_empty()
    }

    fn compare(&mut self, subject: impl Into<String>, expected: u64, found: u64) {
        self.compared += 1;
        if expected != found {
            let (expected, found) = (expected.into(), found.into());
            self.differences.push(Difference { subject: subject.into(), expected, found });
        }
    }

    fn of((compared, differences): (u64, Vec<Difference>), name: &str, what: &str) -> Self {
        Self { compared, differences, ..Self::new(name, what) }
    }
}

/// All books that could be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether every one of them balances.
    pub balanced: bool,
    /// In the order of their names.
    pub books: Vec<Book>,
}

impl From<Vec<Book>> for Report {
    fn from(books: Vec<Book>) -> Self {
        Self { balanced: books.iter().all(Book::balances), books }
    }
}

/// R1 to R4: what the ledger alone can tell, also while it is written to.
///
/// # Errors
/// [`Unavailable`] when the ledger is.
pub async fn books(ledger: &dyn Books) -> Result<Vec<Book>, Unavailable> {
    let (before, partitions) = partitions(ledger).await?;
    let raw = ledger.raw().await?;
    let (after, _) = self::partitions(ledger).await?;
    let summaries = "each summary row against its events";
    let statistics = "each user's statistics against their events";
    Ok(vec![
        partitions,
        raw_book(before, raw, after),
        Book::of(ledger.summaries().await?, "R3", summaries),
        Book::of(ledger.statistics().await?, "R4", statistics),
    ])
}

/// R1, and how many events are counted in all.
async fn partitions(ledger: &dyn Books) -> Result<(u64, Book), Unavailable> {
    let mut book = Book::new("R1", "each partition's cursor against what became of its records");
    let mut counted: u64 = 0;
    for partition in ledger.partitions().await? {
        let here = partition.tallies.counted;
        let records = partition.tallies.records().unwrap_or(u64::MAX);
        book.compare(
            format!("partition {}", partition.partition),
            partition.range.count(),
            records,
        );
        counted = counted.saturating_add(here);
    }
    Ok((counted, book))
}

/// R2. The tallies are read before and after the events: what was counted meanwhile is no
/// difference, and while nothing is counted the comparison is exact.
fn raw_book(counted_before: u64, raw: RawBook, counted_after: u64) -> Book {
    let mut book = Book::new("R2", "stored events against counted ones and against statistics");
    let counted = raw.events.clamp(counted_before, counted_after.max(counted_before));
    book.compare("events", counted, raw.events);
    book.compare("tokens of the statistics", raw.tokens, raw.statistics_tokens);
    book.compare("requests of the statistics", raw.events, raw.statistics_requests);
    book
}

/// Compares all books every `interval` and shows the differences as the gauge
/// `tokenmeter_book_difference`. R2 to R4 read every event once, so not every second. Works until
/// it is dropped.
pub async fn watch_books(
    aggregator: Aggregator,
    ledger: std::sync::Arc<dyn Books>,
    interval: Duration,
) {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // Of all who count, one compares.
        if !aggregator.progress.partitions().contains_key(&Partition::SINGLE) {
            continue;
        }
        let compared = books(&*ledger).await;
        let counter = aggregator.counter_book().await;
        for books in [compared, counter.map(|book| vec![book])] {
            match books {
                Ok(books) => books.iter().for_each(show),
                // The gauges keep what was seen last.
                Err(error) => tracing::warn!(%error, "books were not compared"),
            }
        }
    }
}

fn show(book: &Book) {
    let differences = u32::try_from(book.differences.len()).map_or(f64::MAX, f64::from);
    let name = book.name.clone();
    metrics::gauge!("tokenmeter_book_difference", "book" => name).set(differences);
    for difference in &book.differences {
        let Difference { subject, expected, found } = difference;
        tracing::error!(book = book.name, subject, expected, found, "a book does not balance");
    }
}

#[cfg(test)]
mod tests;
