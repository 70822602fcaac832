//! R5: the quota counter against the ledger, while both go on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{CounterUser, InFlight, MARGIN, Totals};
use metering::time::{Period, Timestamp};
use metering::usage::{
    AdmittedEvent, Difference, Flag, IdDigest, Offset, OffsetRange, Partition, Payload,
    RequestType, is_void,
};

use super::Book;
use crate::run::Aggregator;

/// A figure that is on its way from the ledger to the counter agrees at the next look. So many looks
/// before it is called a difference.
const LOOKS_MAX: u32 = 6;

/// Between two looks: several times what a sync takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Users asked for in one look-up: it holds one of the ledger's readers.
const USERS_PER_LOOKUP: usize = 1000;

/// Records beyond the cursor that are looked at. Behind by more, the first ones tell as much.
const RECORDS_MAX: usize = 10_000;

/// Differences listed at most.
const DIFFERENCES_MAX: usize = 100;

type UserMonth = (UserId, Period);

impl Aggregator {
    /// R5: each user's totals in the counter are those of the ledger, each record that is still to
    /// be counted has its entry there, and no entry comes from the future. Meant to be asked while
    /// everything goes on: what is merely on its way is no difference.
    ///
    /// # Errors
    /// [`Unavailable`] when a store is, and before the counter serves.
    pub async fn counter_book(&self) -> Result<Book, Unavailable> {
        let mut book = Book::new("R5", "the quota counter against the ledger and the log's tail");
        let audit = self.counter.audit().await?;
        let months: Vec<_> = audit.iter().map(month).collect();
        book.compared = u64::try_from(months.len()).unwrap_or(u64::MAX);
        let mut before = self.totals(months).await?;
        for look in 1.. {
            let audit = self.counter.audit().await?;
            let after = self.totals(before.keys().copied().collect()).await?;
            let differing = compare(&audit, &before, &after);
            if differing.is_empty() {
                break;
            }
            if look == LOOKS_MAX {
                book.differences = differing.into_values().collect();
                break;
            }
            before = after.into_iter().filter(|(month, _)| differing.contains_key(month)).collect();
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        for (partition, progress) in self.progress.partitions() {
            let Some(cursor) = progress.cursor else { continue };
            let (records, differences) = self.without_entry(partition, cursor).await?;
            book.compared += records;
            book.differences.extend(differences);
        }
        let now = self.clock.now();
        book.differences.extend(audit.iter().flat_map(|user| from_the_future(user, now)));
        book.differences.truncate(DIFFERENCES_MAX);
        Ok(book)
    }

    async fn totals(
        &self,
        months: Vec<UserMonth>,
    ) -> Result<HashMap<UserMonth, Totals>, Unavailable> {
        let mut totals = HashMap::with_capacity(months.len());
        for months in months.chunks(USERS_PER_LOOKUP) {
            let found = self.lookup.totals(months).await?.into_iter().map(|at| at.totals);
            totals.extend(months.iter().copied().zip(found));
        }
        Ok(totals)
    }

    /// Records of the log that the ledger has not counted and the counter does not reckon with,
    /// though it knows their users; and how many were looked at.
    async fn without_entry(
        &self,
        partition: Partition,
        cursor: Offset,
    ) -> Result<(u64, Vec<Difference>), Unavailable> {
        // In this order: a record that was in the log before the audit, and is not counted after
        // it, was in flight at the audit.
        let range = OffsetRange { start: cursor, end: self.source.end(partition).await? };
        let records = self.source.read_again(partition, range, RECORDS_MAX).await?;
        let waiting: Vec<_> = records
            .into_iter()
            .filter_map(|record| match record.payload {
                Payload::Event(admitted) if !is_void(&admitted, record.log_time) => Some(admitted),
                Payload::Event(_) | Payload::Tick(_) | Payload::Undecodable { .. } => None,
            })
            .filter(|admitted| was_metered(admitted))
            .collect();
        let audit = self.counter.audit().await?;
        let ids: Vec<_> = waiting.iter().map(|one| (one.event.user_id, one.id_digest)).collect();
        let known = self.lookup.known(&ids).await?.found;
        let users: HashSet<_> = audit.iter().map(month).collect();
        let in_flight: HashSet<(UserMonth, IdDigest)> = audit
            .iter()
            .flat_map(|user| user.in_flight.iter().map(|entry| (month(user), entry.id_digest)))
            .collect();
        let looked_at = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        let missing = waiting.into_iter().zip(known).filter_map(|(admitted, known)| {
            let month = (admitted.event.user_id, admitted.event.period());
            let reckoned = known.is_some()
                || !users.contains(&month)
                || in_flight.contains(&(month, admitted.id_digest));
            let subject =
                || format!("user {} {}: entries of an event in the log", month.0, month.1);
            (!reckoned).then(|| Difference { subject: subject(), expected: 1, found: 0 })
        });
        Ok((looked_at, missing.collect()))
    }
}

fn month(user: &CounterUser) -> UserMonth {
    (user.ledger.user_id, user.ledger.period)
}

/// Whether the counter ever had an entry of it.
fn was_metered(admitted: &AdmittedEvent) -> bool {
    !admitted.flags.has(Flag::Unmetered) && !admitted.flags.has(Flag::Replayed)
}

/// Months whose totals in the counter are not between the ledger's before and after the audit. Only
/// those in both are compared. The ledger only grows, and the counter follows it: what is smaller
/// may be on its way.
fn compare(
    audit: &[CounterUser],
    before: &HashMap<UserMonth, Totals>,
    after: &HashMap<UserMonth, Totals>,
) -> HashMap<UserMonth, Difference> {
    let mut differing = HashMap::new();
    for user in audit {
        let month = month(user);
        let (Some(before), Some(after)) = (before.get(&month), after.get(&month)) else { continue };
        let found = figures(&user.ledger.totals);
        for ((name, found), ((_, least), (_, most))) in
            found.into_iter().zip(figures(before).into_iter().zip(figures(after)))
        {
            if found < least || most < found {
                let subject = format!("user {} {}: {name}", month.0, month.1);
                let (expected, found) = (most.into(), found.into());
                differing.entry(month).or_insert(Difference { subject, expected, found });
            }
        }
    }
    differing
}

fn figures(totals: &Totals) -> [(&'static str, u64); 4] {
    let [chat, plagiarism, prompts] = totals.requests;
    [
        ("tokens", totals.tokens),
        (RequestType::Chat.counter(), chat),
        (RequestType::Plagiarism.counter(), plagiarism),
        (RequestType::PromptGeneration.counter(), prompts),
    ]
}

/// Entries that no watermark would ever reach: they would be held against the user for too long.
fn from_the_future(user: &CounterUser, now: Timestamp) -> Vec<Difference> {
    let late = |entry: &&InFlight| entry.admitted_at > now.plus(MARGIN);
    let (id, period) = month(user);
    let differences = user.in_flight.iter().filter(late).map(|entry| Difference {
        subject: format!("user {id} {period}: milliseconds of an entry's admission"),
        expected: now.as_millis().into(),
        found: entry.admitted_at.as_millis().into(),
    });
    differences.collect()
}
