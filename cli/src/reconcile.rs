//! `tokenmeter reconcile`: compares the books, and tells.
//!
//! R1 to R4 are read from the ledger beside whoever writes it. R5 of a single node is the running
//! server's to tell, because the quota counter is in it.

use aggregator::Book;
use anyhow::Context as _;
use metering::usage::Difference;
use serde::Serialize;

use crate::backend::{Backend, Cluster};
use crate::commands::ReconcileArgs;
use crate::context::Context;
use crate::data_dir::DataDir;
use crate::ops_client;
use crate::output::{Outcome, say, say_json};

/// Differences shown of each book; `--json` has all that were found.
const DIFFERENCES_SHOWN: usize = 10;

#[derive(Serialize)]
struct Report {
    balanced: bool,
    repaired: bool,
    books: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    what: String,
    status: &'static str,
    compared: u64,
    differences: Vec<Difference>,
}

impl From<Book> for Line {
    fn from(book: Book) -> Self {
        let status = if book.balances() { "balanced" } else { "differs" };
        let Book { name, what, compared, differences } = book;
        Self { name, what, status, compared, differences }
    }
}

pub(crate) fn run(context: &Context, args: &ReconcileArgs) -> anyhow::Result<Outcome> {
    let backend = context.backend()?;
    let mut report = compare(context, &backend)?;
    if args.repair && !report.balanced {
        repair(context, &backend)?;
        report = Report { repaired: true, ..compare(context, &backend)? };
    }
    if args.output.json {
        say_json(&report)?;
    } else {
        tell(&report);
    }
    Ok(Outcome::of(report.balanced))
}

fn compare(context: &Context, backend: &Backend) -> anyhow::Result<Report> {
    let ledger = backend.books(context)?;
    let compared = context.block_on(aggregator::books(&*ledger));
    let compared = compared.context("the ledger cannot be read")?;
    let mut books: Vec<Line> = compared.into_iter().map(Line::from).collect();
    books.push(match backend {
        Backend::Cluster(cluster) => context.block_on(counter_of_cluster(context, cluster))?,
        Backend::SingleNode(directory) => counter_of_server(directory)?,
    });
    let balanced = books.iter().all(|book| book.differences.is_empty());
    Ok(Report { balanced, repaired: false, books })
}

/// R5 of the cluster: whoever asks can read all that it compares.
async fn counter_of_cluster(context: &Context, cluster: &Cluster) -> anyhow::Result<Line> {
    let aggregator = cluster.observer(context).await?;
    let book = aggregator.counter_book().await.context("R5: the counter cannot be read")?;
    Ok(book.into())
}

fn counter_of_server(directory: &DataDir) -> anyhow::Result<Line> {
    let Some(server) = directory.running_server()? else {
        // The next start makes the counter anew from the ledger and the log.
        return Ok(Line {
            name: "R5".to_owned(),
            what: "the quota counter: no server runs, so there is none".to_owned(),
            status: "not applicable",
            compared: 0,
            differences: Vec::new(),
        });
    };
    let answer = ops_client::get(&server, "/reconcile/counter")?;
    let detail = answer["detail"].as_str().unwrap_or("no book").to_owned();
    let book: Book =
        serde_json::from_value(answer).with_context(|| format!("R5: the server says: {detail}"))?;
    Ok(book.into())
}

/// Statistics and summaries are made again from the stored events. A server that runs would go on
/// with the totals it has in memory, so not beside one.
fn repair(context: &Context, backend: &Backend) -> anyhow::Result<()> {
    let _lock = match backend {
        Backend::Cluster(_) => None,
        Backend::SingleNode(directory) => {
            Some(directory.lock().context("--repair works on a directory without a server")?)
        }
    };
    let ledger = backend.books(context)?;
    context.block_on(ledger.repair()).context("the ledger cannot be repaired")
}

fn tell(report: &Report) {
    for Line { name, what, status, compared, differences } in &report.books {
        say(format!("{name}  {status:14} {compared:>9} compared  {what}"));
        for Difference { subject, expected, found } in differences.iter().take(DIFFERENCES_SHOWN) {
            say(format!("    {subject}: should be {expected}, is {found}"));
        }
        let more = differences.len().saturating_sub(DIFFERENCES_SHOWN);
        if more > 0 {
            say(format!("    and {more} more (--json)"));
        }
    }
    let repaired = if report.repaired { " after the repair" } else { "" };
    if report.balanced {
        say(format!("Every book balances{repaired}."));
    } else {
        say(format!("The books do not balance{repaired}."));
    }
}
