//! `tokenmeter replay`: sends a trace over HTTP, as a service would.
//!
//! Event ids come from the file's content and the row, and row `i` always belongs to user
//! `i mod users`: a second run with the same number of users is all duplicates.

mod client;
mod trace;

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use metering::accounts::{Scope, Scopes};
use metering::time::Timestamp;
use metering::usage::TimeWindow;
use serde::Serialize;
use serde_json::{Value, json};

use self::client::Client;
use self::trace::{Row, Trace};
use crate::commands::{ReplayArgs, Speed};
use crate::context::Context;
use crate::key::TemporaryKey;
use crate::output::{Outcome, WrongUse, complain, say, say_json};

/// Requests under way at once: enough that the server's commits are shared.
const WORKERS: usize = 4;

/// How many refusals are told.
const REFUSALS_SHOWN: usize = 5;

/// What became of the rows.
#[derive(Debug, Default, Serialize)]
struct Report {
    events: usize,
    users: usize,
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    retries: u64,
    seconds: f64,
    events_per_second: f64,
    refusals: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &ReplayArgs) -> anyhow::Result<Outcome> {
    let trace = Trace::open(&args.file)?;
    let (url, key) = target(context, args, &trace)?;
    let client = Client::new(&url, &key.secret)?;
    let shift = shift(&trace, args.keep_times, context.clock.now());
    let report = Replay { client, trace: &trace, args, shift }.run()?;
    if args.output.json {
        say_json(&report)?;
    } else {
        tell(&report);
    }
    Ok(Outcome::of(report.rejected == 0))
}

/// The server and the key: as given, or those of the local data directory.
fn target<'a>(
    context: &'a Context,
    args: &ReplayArgs,
    trace: &Trace,
) -> anyhow::Result<(String, TemporaryKey<'a>)> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None if context.settings.cluster.is_some() => {
            format!("http://{}", context.settings.listen)
        }
        None => {
            let server = context.directory()?.running_server()?.with_context(|| {
                let directory = context.settings.data_dir.display();
                format!("no server runs on {directory}: start `tokenmeter`, or give --url")
            })?;
            format!("http://{}", server.listen)
        }
    };
    if let Some(path) = &args.api_key_file {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--api-key-file: cannot read {}", path.display()))?;
        let secret = text.lines().next().unwrap_or_default().trim().to_owned();
        return Ok((url, TemporaryKey::given(secret)));
    }
    if context.settings.cluster.is_none() && !context.settings.data_dir.is_dir() {
        let detail = "without a local data directory replay needs --api-key-file".to_owned();
        return Err(WrongUse(detail).into());
    }
    let mut scopes = Scopes::from_iter([Scope::Users, Scope::Ingest]);
    if args.keep_times || TimeWindow::SERVICE.back.is_some_and(|back| trace.span() >= back) {
        scopes = scopes.with(Scope::Backfill);
    }
    Ok((url, TemporaryKey::make(context, "replay (temporary)", scopes)?))
}

/// What is added to the trace's times, in milliseconds: it ends now.
fn shift(trace: &Trace, keep_times: bool, now: Timestamp) -> i64 {
    if keep_times { 0 } else { now.as_millis() - trace.last().as_millis() }
}

struct Replay<'a> {
    client: Client,
    trace: &'a Trace,
    args: &'a ReplayArgs,
    shift: i64,
}

impl Replay<'_> {
    fn run(self) -> anyhow::Result<Report> {
        let users = self.make_users()?;
        let progress = progress(self.trace.rows.len());
        let sending = Sending {
            replay: &self,
            users: &users,
            batches: self.trace.rows.chunks(self.args.batch.try_into()?).collect(),
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            report: Mutex::new(Report::default()),
            progress: &progress,
            begun: Instant::now(),
        };
        let failures: Vec<anyhow::Error> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| sending.work())).collect();
            let ended = workers.into_iter().map(|worker| match worker.join() {
                Ok(ended) => ended,
                Err(_) => Err(anyhow!("a sender died")),
            });
            ended.filter_map(Result::err).collect()
        });
        progress.finish_and_clear();
        let seconds = sending.begun.elapsed().as_secs_f64();
        let mut report = sending.report.into_inner().map_err(|_| anyhow!("the report was lost"))?;
        if let Some(failure) = failures.into_iter().next() {
            let sent = report.accepted + report.duplicates + report.rejected;
            let all = self.trace.rows.len();
            let detail = format!("after {sent} of {all} events; the same command goes on safely");
            return Err(failure.context(detail));
        }
        report.events = self.trace.rows.len();
        report.users = users.len();
        report.retries = self.client.retries();
        report.seconds = seconds;
        // Rounded for reading; a trace has far fewer rows than a float is exact for.
        let events = f64::from(u32::try_from(report.events).unwrap_or(u32::MAX));
        report.events_per_second = (events / seconds.max(1e-3)).round();
        Ok(report)
    }

    /// Makes the users that rows fall to; those of an earlier run are there already.
    fn make_users(&self) -> anyhow::Result<Vec<String>> {
        let wanted = usize::try_from(self.args.users)?.min(self.trace.rows.len());
        let progress = progress(wanted);
        let made = (0..wanted).map(|number| {
            let external_id = format!("replay-{number}");
            let name = format!("Replay {number}");
            let body = json!({"external_id": external_id, "name": name, "plan": "professional"});
            let answer = self.client.post("/api/users", &body)?;
            if !matches!(answer.status, 200 | 201) {
                bail!("user {external_id:?} cannot be made: {}", answer.problem());
            }
            progress.inc(1);
            Ok(external_id)
        });
        let made = made.collect();
        progress.finish_and_clear();
        made
    }

    fn event(&self, number: usize, row: Row, users: &[String]) -> Value {
        let occurred_at = Timestamp::from_millis(row.occurred_at.as_millis() + self.shift);
        json!({
            "event_id": format!("{}-{number}", self.trace.digest),
            "external_user_id": users[number % users.len()],
            "request_type": "chat",
            "model": "gpt-3.5-turbo",
            "prompt_tokens": row.prompt_tokens,
            "completion_tokens": row.completion_tokens,
            "occurred_at": occurred_at,
        })
    }
}

/// What the senders share.
struct Sending<'a> {
    replay: &'a Replay<'a>,
    users: &'a [String],
    batches: Vec<&'a [Row]>,
    next: AtomicUsize,
    failed: AtomicBool,
    report: Mutex<Report>,
    progress: &'a ProgressBar,
    begun: Instant,
}

impl Sending<'_> {
    /// Takes one batch after another until none is left, or until another sender gave up.
    fn work(&self) -> anyhow::Result<()> {
        while !self.failed.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(rows) = self.batches.get(number) else { break };
            self.wait_until_due(rows);
            let first = number * usize::try_from(self.replay.args.batch)?;
            let sent = self.send(first, rows);
            self.failed.fetch_or(sent.is_err(), Ordering::Relaxed);
            sent?;
            self.progress.inc(rows.len().try_into()?);
        }
        Ok(())
    }

    /// No event is sent before its time in the trace has come.
    fn wait_until_due(&self, rows: &[Row]) {
        let faster = match self.replay.args.speed {
            Speed::Max => return,
            Speed::One => 1,
            Speed::Ten => 10,
        };
        let last = rows.iter().map(|row| row.occurred_at).max().unwrap_or_default();
        let due = last.since(self.replay.trace.first()) / faster;
        // In steps, so that one sender's failure ends the others soon.
        while let Some(rest) = due.checked_sub(self.begun.elapsed()).filter(|rest| !rest.is_zero())
            && !self.failed.load(Ordering::Relaxed)
        {
            std::thread::sleep(rest.min(Duration::from_millis(200)));
        }
    }

    fn send(&self, first: usize, rows: &[Row]) -> anyhow::Result<()> {
        let events: Vec<Value> = (first..)
            .zip(rows)
            .map(|(number, row)| self.replay.event(number, *row, self.users))
            .collect();
        let outcome = if self.replay.args.batch == 1 {
            self.send_single(first, &events[0])?
        } else {
            self.send_batch(first, &Value::Array(events))?
        };
        let mut report = self.report.lock().map_err(|_| anyhow!("another sender died"))?;
        report.accepted += outcome.accepted;
        report.duplicates += outcome.duplicates;
        report.rejected += outcome.rejected;
        for row in rows {
            report.prompt_tokens += u64::from(row.prompt_tokens);
            report.completion_tokens += u64::from(row.completion_tokens);
        }
        let room = REFUSALS_SHOWN.saturating_sub(report.refusals.len());
        report.refusals.extend(outcome.refusals.into_iter().take(room));
        Ok(())
    }

    fn send_single(&self, row: usize, event: &Value) -> anyhow::Result<Report> {
        let answer = self.replay.client.post("/api/tokens/track", event)?;
        let mut outcome = Report::default();
        match answer.status {
            201 => outcome.accepted = 1,
            200 => outcome.duplicates = 1,
            // The same would be said of every event.
            401 | 403 if answer.body["code"] != "model_not_in_plan" => {
                bail!("the server refuses: {}", answer.problem())
            }
            400..=499 => {
                outcome.rejected = 1;
                outcome.refusals.push(format!("row {}: {}", row + 1, answer.problem()));
            }
            _ => bail!("the server answers {}", answer.problem()),
        }
        Ok(outcome)
    }

    fn send_batch(&self, first: usize, events: &Value) -> anyhow::Result<Report> {
        let answer = self.replay.client.post("/api/tokens/track/batch", events)?;
        if answer.status != 200 {
            bail!("the server refuses the batch: {}", answer.problem());
        }
        let count = |name: &str| {
            let number = answer.body.get(name).and_then(Value::as_u64);
            number.with_context(|| format!("the answer to a batch has no {name:?}"))
        };
        let results = answer.body["results"].as_array().into_iter().flatten();
        let refused = results.filter(|result| result["status"] == "rejected");
        let refusals = refused.take(REFUSALS_SHOWN).map(|result| {
            let index = result["index"].as_u64().and_then(|index| usize::try_from(index).ok());
            let row = first + index.unwrap_or(0) + 1;
            let text = |name: &str| result[name].as_str().unwrap_or("-").to_owned();
            format!("row {row}: {}: {}", text("code"), text("detail"))
        });
        Ok(Report {
            accepted: count("accepted")?,
            duplicates: count("duplicates")?,
            rejected: count("rejected")?,
            refusals: refusals.collect(),
            ..Report::default()
        })
    }
}

/// Drawn on a terminal only.
fn progress(length: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(u64::try_from(length).ok(), target);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta} left");
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

fn tell(report: &Report) {
    let Report { events, users, seconds, events_per_second, .. } = report;
    say(format!(
        "{events} events of {users} users in {seconds:.1} s ({events_per_second} events/s)"
    ));
    let Report { accepted, duplicates, rejected, .. } = report;
    say(format!("accepted {accepted}, duplicates {duplicates}, rejected {rejected}"));
    let Report { prompt_tokens, completion_tokens, retries, .. } = report;
    say(format!("{prompt_tokens} prompt tokens, {completion_tokens} completion tokens"));
    if *retries > 0 {
        say(format!(
            "{retries} requests were sent again; what the first try had stored counts as duplicate"
        ));
    }
    for refusal in &report.refusals {
        complain(refusal);
    }
}
