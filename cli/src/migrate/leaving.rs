//! Leaving the event log that was counted so far for another one.

use std::collections::BTreeMap;

use aggregator::Aggregator;
use anyhow::bail;
use metering::quota::{ADMISSION_WINDOW, MARGIN, QuotaCounter as _};
use metering::usage::{Books as _, LogRecord, Offset, OffsetRange, Partition, Payload};
use stores::kafka::TopicError;
use stores::postgres::log_generations;
use stores::redis::RedisQuotaCounter;

use crate::backend::Cluster;
use crate::context::Context;
use crate::output::complain;

/// Records that are read at a time.
const RECORDS_MAX: usize = 10_000;

/// Refuses while events of the log wait to be counted, which nobody would do any more. First no
/// ingest may add to it: all partitions are closed, it is noted for those that record without a counter,
/// and what was let in before has arrived. A log that is gone or cut short holds nobody up; one that
/// only differs from what it must be does.
///
/// Whoever is refused has lost nothing: aggregators open the partitions again.
pub(super) async fn leave(context: &Context, cluster: &Cluster) -> anyhow::Result<()> {
    let (postgres, number) = (&cluster.postgres, cluster.generation.number);
    log_generations::set_left(postgres, number, true).await?;
    let counted = everything_counted(context, cluster).await;
    if counted.is_err()
        && let Err(error) = log_generations::set_left(postgres, number, false).await
    {
        complain(format!("{error}; `tokenmeter migrate` opens the log again"));
    }
    counted
}

async fn everything_counted(context: &Context, cluster: &Cluster) -> anyhow::Result<()> {
    if let Err(error) = cluster.check_topic().await {
        match error.downcast_ref::<TopicError>() {
            Some(reason) if reason.is_over() => return Ok(()),
            Some(TopicError::Differs { .. }) => {}
            _ => return Err(error),
        }
    }
    let ledger = cluster.ledger();
    let counter = cluster.counter(context, &ledger, &cluster.accounts())?;
    close(cluster, &counter).await?;
    let topic = &cluster.generation.topic;
    let observer = cluster.observer(context).await?;
    let books = ledger.partitions().await?;
    let counted: BTreeMap<_, _> =
        books.iter().map(|book| (book.partition, book.range.end)).collect();
    for partition in partitions(cluster) {
        let first = Offset::first_of(cluster.generation.number);
        let position = counted.get(&partition).copied().unwrap_or(first);
        if let Some(offset) = uncounted(&observer, partition, position).await? {
            bail!(
                "the topic {topic} holds events that are not counted, in partition {partition} from \
                 offset {offset} on: stop the ingests, let the aggregators count them, stop these \
                 too, and try again. Who gives the events up deletes the topic"
            );
        }
    }
    // Aggregators close at once, under a name of their own, what they find closed.
    if !counter.names_hold().await? {
        bail!("an aggregator counts the topic {topic}: stop it, and try again");
    }
    Ok(())
}

fn partitions(cluster: &Cluster) -> impl Iterator<Item = Partition> {
    (0..cluster.generation.partitions.get()).map(Partition::new)
}

/// Closes every partition, and waits until nothing that was let in before can still arrive.
async fn close(cluster: &Cluster, counter: &RedisQuotaCounter) -> anyhow::Result<()> {
    let clock_bound = cluster.settings.clock_bound;
    let mut wait = ADMISSION_WINDOW.saturating_add(MARGIN).saturating_add(clock_bound);
    for partition in partitions(cluster) {
        wait = wait.max(counter.close(partition).await?);
    }
    let seconds = wait.as_secs_f64().ceil();
    complain(format!("the log so far is closed; waiting {seconds} s for what is on its way"));
    tokio::time::sleep(wait).await;
    Ok(())
}

/// The first event at or beyond `position`.
async fn uncounted(
    observer: &Aggregator,
    partition: Partition,
    position: Offset,
) -> anyhow::Result<Option<Offset>> {
    let source = &observer.source;
    let mut range = OffsetRange { start: position, end: source.end(partition).await? };
    while range.start < range.end {
        let records = source.read_again(partition, range, RECORDS_MAX).await?;
        let Some(last) = records.last() else {
            bail!("partition {partition} ended while it was read")
        };
        range.start = last.offset.plus(1);
        let is_event = |record: &&LogRecord| !matches!(record.payload, Payload::Tick(_));
        if let Some(event) = records.iter().find(is_event) {
            return Ok(Some(event.offset));
        }
    }
    Ok(None)
}
