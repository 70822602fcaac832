//! Sends the traffic and notes what was answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::books::Books;
use crate::client::{Address, Answer, Connection};
use crate::latencies::Latencies;
use crate::schedule::Schedule;
use crate::traffic::Traffic;

/// Between two tries of the same request; a server that starts again needs about that long.
const RETRY_GAP: Duration = Duration::from_millis(100);

/// Where the load goes and what it is made of.
pub(crate) struct Load {
    /// Of the server, or of the yardstick.
    pub(crate) address: Address,
    /// Its credential.
    pub(crate) api_key: String,
    /// The events.
    pub(crate) traffic: Arc<Traffic>,
    /// What was acknowledged; the yardstick keeps none.
    pub(crate) books: Option<Arc<Books>>,
    /// Events in a request; 1 uses the call for single events.
    pub(crate) batch: u32,
    /// How often a request without a clear answer is sent again.
    pub(crate) retries: u32,
    /// How many connections.
    pub(crate) connections: u32,
    /// On how many threads.
    pub(crate) threads: u32,
}

/// A stretch of load.
pub(crate) struct Window {
    /// When to send.
    pub(crate) schedule: Schedule,
    /// What comes before is warm-up.
    pub(crate) measured_from: Instant,
    /// Where in the traffic it starts.
    pub(crate) first_position: u64,
}

/// What the server said about one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Recorded now.
    Accepted,
    /// Recorded before.
    Duplicate,
    /// Not recorded.
    Refused,
    /// Nothing clear: recorded or not.
    InDoubt,
}

/// Events by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcomes {
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
    pub(crate) in_doubt: u64,
}

impl Outcomes {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Accepted => self.accepted += 1,
            Outcome::Duplicate => self.duplicates += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::InDoubt => self.in_doubt += 1,
        }
    }

    /// Those with a clear answer.
    pub(crate) fn answered(self) -> u64 {
        self.accepted + self.duplicates + self.refused
    }
}

/// What one or more windows gave, warm-ups left out.
pub(crate) struct Tally {
    /// From when a request was due to its whole answer.
    pub(crate) latency: Latencies,
    /// From when it was sent.
    pub(crate) service: Latencies,
    /// Answered requests.
    pub(crate) requests: u64,
    /// Their events.
    pub(crate) outcomes: Outcomes,
    /// How often each answer came that is not a success, warm-ups included.
    pub(crate) problems: BTreeMap<String, u64>,
    /// The time in which all that was answered.
    pub(crate) measured: Duration,
    /// Requests that were due and never sent.
    pub(crate) not_sent: u64,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Latencies::new()?,
            service: Latencies::new()?,
            requests: 0,
            outcomes: Outcomes::default(),
            problems: BTreeMap::new(),
            measured: Duration::ZERO,
            not_sent: 0,
        })
    }

    /// Adds what another saw.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency)?;
        self.service.add(&other.service)?;
        self.requests += other.requests;
        self.outcomes.accepted += other.outcomes.accepted;
        self.outcomes.duplicates += other.outcomes.duplicates;
        self.outcomes.refused += other.outcomes.refused;
        self.outcomes.in_doubt += other.outcomes.in_doubt;
        self.measured += other.measured;
        self.not_sent += other.not_sent;
        for (problem, count) in &other.problems {
            *self.problems.entry(problem.clone()).or_default() += count;
        }
        Ok(())
    }
}

/// Runs one window to its end.
///
/// # Errors
/// When a thread or a histogram cannot be made; never because of the server, whose failures count.
pub(crate) async fn run(load: &Arc<Load>, window: Window) -> anyhow::Result<(Tally, u64)> {
    let window = Arc::new(window);
    let connections = usize::try_from(load.connections)?;
    let pacer = {
        let window = Arc::clone(&window);
        tokio::task::spawn_blocking(move || window.schedule.release(connections))
    };
    let threads = load.threads.clamp(1, load.connections);
    let mut clients = Vec::new();
    for thread in 0..threads {
        let share = load.connections / threads + u32::from(thread < load.connections % threads);
        let (load, window) = (Arc::clone(load), Arc::clone(&window));
        clients.push(tokio::task::spawn_blocking(move || run_thread(&load, &window, share)));
    }
    let mut tally = Tally::new()?;
    for client in clients {
        tally.add(&client.await??)?;
    }
    pacer.await?;
    let (planned, sent) = (window.schedule.planned(), window.schedule.handed_out());
    tally.not_sent = planned.saturating_sub(sent);
    // An open load that fell behind goes on after the end; what is answered then counts for the
    // latencies, not for the rates.
    tally.measured = window.schedule.end() - window.measured_from;
    Ok((tally, sent))
}

fn run_thread(load: &Arc<Load>, window: &Arc<Window>, share: u32) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("a runtime for the client")?.block_on(async {
        let mut workers = Vec::new();
        for _ in 0..share {
            workers.push(tokio::spawn(work(Arc::clone(load), Arc::clone(window))));
        }
        let mut tally = Tally::new()?;
        for worker in workers {
            tally.add(&worker.await??)?;
        }
        Ok(tally)
    })
}

/// One connection's share of a window.
async fn work(load: Arc<Load>, window: Arc<Window>) -> anyhow::Result<Tally> {
    let mut sender = Sender::new(&load);
    let mut tally = Tally::new()?;
    // A server that is not there yet shows in the first exchange.
    sender.connection.open().await.ok();
    while let Some(turn) = window.schedule.next().await {
        let position = window.first_position + turn.request * u64::from(load.batch);
        sender.write_request(position);
        let sent_at = Instant::now();
        sender.send(&mut tally.problems).await;
        let done = Instant::now();
        if let Some(books) = &load.books {
            books.note(&sender.numbers, &sender.outcomes);
        }
        if turn.intended >= window.measured_from {
            tally.latency.record(done - turn.intended);
            tally.service.record(done - sent_at);
        }
        if done >= window.measured_from && done < window.schedule.end() {
            tally.requests += 1;
            sender.outcomes.iter().for_each(|outcome| tally.outcomes.count(*outcome));
        }
    }
    Ok(tally)
}

/// One connection and what it needs to send, used again for each request.
struct Sender<'a> {
    load: &'a Load,
    connection: Connection,
    head: String,
    numbers: Vec<u64>,
    outcomes: Vec<Outcome>,
    body: Vec<u8>,
    request: Vec<u8>,
}

impl<'a> Sender<'a> {
    fn new(load: &'a Load) -> Self {
        let path = if load.batch == 1 { "/api/tokens/track" } else { "/api/tokens/track/batch" };
        Self {
            load,
            connection: Connection::new(load.address.clone()),
            head: load.address.head("POST", path, &load.api_key),
            numbers: Vec::new(),
            outcomes: Vec::new(),
            body: Vec::new(),
            request: Vec::new(),
        }
    }

    fn write_request(&mut self, position: u64) {
        let (load, batch) = (self.load, u64::from(self.load.batch));
        self.numbers.clear();
        self.numbers.extend((position..position + batch).map(|p| load.traffic.event_at(p)));
        self.body.clear();
        if batch > 1 {
            self.body.push(b'[');
        }
        for (index, number) in self.numbers.iter().enumerate() {
            if index > 0 {
                self.body.push(b',');
            }
            load.traffic.write_event(*number, &mut self.body);
        }
        if batch > 1 {
            self.body.push(b']');
        }
        self.request.clear();
        self.request.extend_from_slice(self.head.as_bytes());
        let length = format!("content-length: {}\r\n\r\n", self.body.len());
        self.request.extend_from_slice(length.as_bytes());
        self.request.extend_from_slice(&self.body);
    }

    /// Sends the request, again if it may; the outcomes are in `self.outcomes` afterwards.
    async fn send(&mut self, problems: &mut BTreeMap<String, u64>) {
        for attempt in 0..=self.load.retries {
            if attempt > 0 {
                tokio::time::sleep(RETRY_GAP).await;
            }
            let count = self.numbers.len();
            match self.connection.exchange(&self.request).await {
                Ok(answer) => {
                    let batch = self.load.batch > 1;
                    if let Some(problem) = read_outcomes(batch, count, &answer, &mut self.outcomes)
                    {
                        *problems.entry(problem).or_default() += 1;
                    }
                }
                Err(error) => {
                    self.outcomes.clear();
                    self.outcomes.resize(count, Outcome::InDoubt);
                    *problems.entry(format!("connection: {}", error.kind())).or_default() += 1;
                }
            }
            if !self.outcomes.contains(&Outcome::InDoubt) {
                return;
            }
        }
    }
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(borrow)]
    code: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct BatchAnswer<'a> {
    #[serde(borrow)]
    results: Vec<BatchResult<'a>>,
}

#[derive(Deserialize)]
struct BatchResult<'a> {
    index: usize,
    status: &'a str,
}

/// Reads what became of each of `count` events. Answers how to call it when it is no success.
fn read_outcomes(
    batch: bool,
    count: usize,
    answer: &Answer<'_>,
    outcomes: &mut Vec<Outcome>,
) -> Option<String> {
    outcomes.clear();
    let all = match answer.status {
        200 if batch => Outcome::Accepted,
        200 => Outcome::Duplicate,
        201 => Outcome::Accepted,
        408 | 500.. => Outcome::InDoubt,
        _ => Outcome::Refused,
    };
    outcomes.resize(count, all);
    if answer.status >= 300 {
        let problem = serde_json::from_slice::<Problem<'_>>(answer.body);
        let code = problem.map_or_else(|_| "without a code".into(), |problem| problem.code);
        return Some(format!("{} {code}", answer.status));
    }
    if !batch {
        return None;
    }
    let Ok(BatchAnswer { results }) = serde_json::from_slice(answer.body) else {
        outcomes.fill(Outcome::InDoubt);
        return Some("a batch answer that is not understood".to_owned());
    };
    for result in results {
        let Some(outcome) = outcomes.get_mut(result.index) else { continue };
        *outcome = match result.status {
            "accepted" => Outcome::Accepted,
            "duplicate" => Outcome::Duplicate,
            _ => Outcome::Refused,
        };
    }
    None
}

#[cfg(test)]
mod tests;
