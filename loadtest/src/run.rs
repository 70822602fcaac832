//! One run: users, windows of load that alternate with the yardstick, the books.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::books::{Audit, Books};
use crate::client::{Address, Api};
use crate::load::{self, Load, Tally, Window};
use crate::observe::{Observed, Watched};
use crate::options::{Options, Rate};
use crate::probe::Probe;
use crate::report::{BooksReport, Report, Side, Waiting};
use crate::schedule::Schedule;
use crate::setup;
use crate::traffic::{self, Traffic};
use crate::yardstick::Yardstick;

/// How long the server may go on with its backlog before the yardstick's turn.
const SETTLE: Duration = Duration::from_secs(20);

/// Does all that the options ask for.
///
/// # Errors
/// When the server cannot be reached, refuses the set-up, or does not show what it counted.
pub(crate) async fn run(options: Options) -> anyhow::Result<Report> {
    let address = Address::from_url(&options.url)?;
    let api_key = std::fs::read_to_string(&options.api_key_file)
        .with_context(|| format!("reading {}", options.api_key_file.display()))?
        .trim()
        .to_owned();
    // Different for each run, so that a second one with the same seed sends new events.
    let run = u32::try_from(jiff::Timestamp::now().as_microsecond() & 0xffff_ffff)?;
    let (traffic, probe_user) = make_traffic(&options, &address, &api_key, run).await?;
    let books = Arc::new(Books::new());
    let load = Arc::new(Load {
        address: address.clone(),
        api_key: api_key.clone(),
        traffic: Arc::clone(&traffic),
        books: Some(Arc::clone(&books)),
        batch: options.batch,
        retries: options.retries,
        connections: options.connections,
        threads: options.client_threads,
    });
    let ops = options.ops_url.as_deref().map(Address::from_url).transpose()?;
    let waiting_metric = options.waiting_metric.clone();
    let mut server = Loaded::new(
        load,
        Watched { pid: options.pid, others: options.processes.clone(), ops, waiting_metric },
    )?;
    let api = |key: &str| Api::new(address.clone(), key);
    let mut probe = probe_user.map(|user| Probe::new(api(&api_key), user, run)).transpose()?;
    let yardstick = run_windows(&options, &mut server, probe.as_mut()).await?;

    server.watched.settle(SETTLE).await;
    let at_the_end = server.watched.waiting_now().await;
    let audit = setup::compare(&mut api(&api_key), &traffic, &books, options.books).await?;
    let records_waiting = Waiting::of(&server.observed.waiting, at_the_end);
    let server = server.side();
    let yardstick = yardstick.map(Loaded::side);
    Ok(Report {
        run: format!("{run:08x}"),
        probe: probe.map(|probe| probe.report()),
        records_waiting,
        ratio: yardstick.as_ref().map(|yardstick| server.over(yardstick)),
        server,
        yardstick,
        books: BooksReport {
            balanced: audit.as_ref().map(Audit::balanced),
            listed: books.summary(),
            audit,
        },
        options,
    })
}

async fn make_traffic(
    options: &Options,
    address: &Address,
    api_key: &str,
    run: u32,
) -> anyhow::Result<(Arc<Traffic>, Option<String>)> {
    say(&format!("run {run:08x}: making {} users", options.users));
    let count = usize::try_from(options.users)?;
    let over_limit_users = traffic::over_limit_users(count, options.over_limit).min(count);
    let mut names: Vec<_> = (0..count)
        .map(|n| {
            let plan = if n < over_limit_users { "free" } else { "professional" };
            (format!("loadtest-{run:08x}-{n}"), plan)
        })
        .collect();
    if options.probe {
        names.push((format!("loadtest-{run:08x}-probe"), "professional"));
    }
    let mut users = setup::make_users(address, api_key, names).await?;
    let probe_user = if options.probe { users.pop() } else { None };
    let (seed, repeats, over_limit) = (options.seed, options.repeats, options.over_limit);
    let traffic = Traffic { seed, run, users, over_limit_users, repeats, over_limit };
    Ok((Arc::new(traffic), probe_user))
}

/// Windows on the server and on the yardstick in turn, so that both meet the machine's moods.
async fn run_windows(
    options: &Options,
    server: &mut Loaded,
    mut probe: Option<&mut Probe>,
) -> anyhow::Result<Option<Loaded>> {
    let span = options.duration / options.windows;
    let yardstick_span = options.yardstick.unwrap_or(options.duration) / options.windows;
    let started = if yardstick_span.is_zero() { None } else { Some(Yardstick::start()?) };
    let mut yardstick = started.as_ref().map(|yardstick| server.beside(yardstick)).transpose()?;
    for window in 1..=options.windows {
        let rate = server.window(options, span, probe.as_deref_mut()).await?;
        say(&format!("window {window}: {rate:.0} events/s"));
        if let Some(yardstick) = &mut yardstick {
            server.watched.settle(SETTLE).await;
            let rate = yardstick.window(options, yardstick_span, None).await?;
            say(&format!("window {window}: {rate:.0} events/s by the yardstick"));
        }
    }
    Ok(yardstick)
}

/// A side under load, and what was seen of it so far.
struct Loaded {
    load: Arc<Load>,
    watched: Watched,
    next_position: u64,
    tally: Tally,
    windows: Vec<f64>,
    observed: Observed,
}

impl Loaded {
    fn new(load: Arc<Load>, watched: Watched) -> anyhow::Result<Self> {
        Ok(Self {
            load,
            watched,
            next_position: 0,
            tally: Tally::new()?,
            windows: Vec::new(),
            observed: Observed::default(),
        })
    }

    /// The yardstick under the same traffic.
    fn beside(&self, yardstick: &Yardstick) -> anyhow::Result<Self> {
        let load = Load {
            address: yardstick.address.clone(),
            api_key: self.load.api_key.clone(),
            traffic: Arc::clone(&self.load.traffic),
            books: None,
            ..*self.load
        };
        let (waiting_metric, others) = (String::new(), Vec::new());
        let pid = Some(yardstick.pid());
        Self::new(Arc::new(load), Watched { pid, others, ops: None, waiting_metric })
    }

    /// Loads it for a warm-up and `span`; answers the events a second.
    async fn window(
        &mut self,
        options: &Options,
        span: Duration,
        probe: Option<&mut Probe>,
    ) -> anyhow::Result<f64> {
        let start = Instant::now() + Duration::from_millis(20);
        let measured_from = start + options.warmup;
        let requests_per_second = match options.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate / f64::from(options.batch)),
        };
        let schedule = Schedule::new(start, options.warmup + span, requests_per_second);
        let until = schedule.end();
        let window = Window { schedule, measured_from, first_position: self.next_position };
        let probing = async {
            if let Some(probe) = probe {
                probe.run(until).await;
            }
        };
        let watching = self.watched.watch(measured_from, until);
        let (loaded, observed, ()) = tokio::join!(load::run(&self.load, window), watching, probing);
        let (tally, requests) = loaded?;
        self.next_position += requests * u64::from(options.batch);
        let rate = tally.outcomes.answered() as f64 / tally.measured.as_secs_f64();
        self.windows.push(rate);
        self.tally.add(&tally)?;
        self.observed.add(observed);
        Ok(rate)
    }

    fn side(self) -> Side {
        Side::new(&self.tally, self.windows, self.observed)
    }
}

/// Progress goes to standard error: standard output is for the report.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests;
