//! The report of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::books::{Audit, BooksSummary};
use crate::latencies::LatencySummary;
use crate::load::{Outcomes, Tally};
use crate::observe::Observed;
use crate::options::Options;
use crate::probe::ProbeReport;

/// All that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// How it was called.
    pub(crate) options: Options,
    /// Stands in the ids of its events and users.
    pub(crate) run: String,
    /// The server under load.
    pub(crate) server: Side,
    /// Accepted → visible.
    pub(crate) probe: Option<ProbeReport>,
    /// Records waiting to be counted.
    pub(crate) records_waiting: Option<Waiting>,
    /// The bare handler under the same load.
    pub(crate) yardstick: Option<Side>,
    /// The server's figures over the yardstick's.
    pub(crate) ratio: Option<Ratio>,
    /// The client's own list, and what the server counted.
    pub(crate) books: BooksReport,
}

/// One side of the comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    /// Answered events a second: accepted, duplicates and refused.
    pub(crate) events_per_second: f64,
    /// Accepted events a second.
    pub(crate) accepted_per_second: f64,
    /// Answered requests a second.
    pub(crate) requests_per_second: f64,
    /// Answered events a second of each window.
    pub(crate) windows: Vec<f64>,
    /// The time measured, in seconds.
    pub(crate) measured_seconds: f64,
    /// From when a request was due to its whole answer.
    pub(crate) latency: LatencySummary,
    /// From when a request was sent.
    pub(crate) service_time: LatencySummary,
    /// Events by outcome.
    pub(crate) outcomes: Outcomes,
    /// Answers that are no success, by status and code; warm-ups included.
    pub(crate) problems: BTreeMap<String, u64>,
    /// Requests that were due and never sent: the server was too slow.
    pub(crate) requests_not_sent: u64,
    /// CPU time of its process for each answered event, in microseconds.
    pub(crate) cpu_micros_per_event: Option<f64>,
    /// CPU time and memory of its process.
    #[serde(flatten)]
    pub(crate) observed: Observed,
}

/// Records that the log holds and the ledger does not, sampled about once a second under load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Waiting {
    mean_of_first_half: f64,
    mean_of_second_half: f64,
    max: f64,
    last_under_load: f64,
    /// When the run was over and settled.
    pub(crate) at_the_end: Option<f64>,
}

/// The server's figures over the yardstick's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    events_per_second: f64,
    cpu_per_event: Option<f64>,
}

/// R6.
#[derive(Debug, Serialize)]
pub(crate) struct BooksReport {
    /// Whether acknowledged ⊆ counted ⊆ sent, each once; `None` when not compared.
    pub(crate) balanced: Option<bool>,
    /// The client's list: distinct events.
    #[serde(flatten)]
    pub(crate) listed: BooksSummary,
    /// What the server counted.
    pub(crate) audit: Option<Audit>,
}

impl Side {
    /// From what its windows gave.
    pub(crate) fn new(tally: &Tally, windows: Vec<f64>, mut observed: Observed) -> Self {
        let seconds = tally.measured.as_secs_f64().max(f64::MIN_POSITIVE);
        let answered = tally.outcomes.answered();
        for process in observed.processes.values_mut().filter(|_| answered > 0) {
            process.cpu_seconds_per_million_events =
                process.cpu_seconds * 1_000_000.0 / answered as f64;
        }
        let cpu_micros_per_event = observed
            .cpu_seconds
            .filter(|_| answered > 0)
            .map(|cpu| cpu * 1_000_000.0 / answered as f64);
        Self {
            events_per_second: answered as f64 / seconds,
            accepted_per_second: tally.outcomes.accepted as f64 / seconds,
            requests_per_second: tally.requests as f64 / seconds,
            windows,
            measured_seconds: seconds,
            latency: tally.latency.summary(),
            service_time: tally.service.summary(),
            outcomes: tally.outcomes,
            problems: tally.problems.clone(),
            requests_not_sent: tally.not_sent,
            cpu_micros_per_event,
            observed,
        }
    }

    /// This one's figures over `yardstick`'s.
    pub(crate) fn over(&self, yardstick: &Self) -> Ratio {
        Ratio {
            events_per_second: self.events_per_second / yardstick.events_per_second,
            cpu_per_event: self
                .cpu_micros_per_event
                .zip(yardstick.cpu_micros_per_event)
                .map(|(mine, theirs)| mine / theirs),
        }
    }

    fn lines(&self, name: &str, text: &mut String) {
        let Self { events_per_second, requests_per_second, .. } = self;
        let cpu = self
            .cpu_micros_per_event
            .map_or(String::new(), |cpu| format!(", {cpu:.1} µs CPU each"));
        let memory = self
            .observed
            .rss_bytes_max
            .map_or(String::new(), |bytes| format!(", {} MB", bytes / 1_000_000));
        // Writing to a string cannot fail.
        writeln!(
            text,
            "{name:<10} {events_per_second:.0} events/s in {requests_per_second:.0} requests/s{cpu}{memory}\n\
             {:<10} {}",
            "",
            self.latency.line()
        )
        .ok();
        for (name, process) in &self.observed.processes {
            let (cpu, memory) =
                (process.cpu_seconds_per_million_events, process.rss_bytes_max / 1_000_000);
            writeln!(text, "{:<10} {name}: {cpu:.1} µs CPU each, {memory} MB", "").ok();
        }
        for (problem, count) in &self.problems {
            writeln!(text, "{:<10} {count} × {problem}", "").ok();
        }
        if self.requests_not_sent > 0 {
            writeln!(text, "{:<10} {} requests were due and not sent", "", self.requests_not_sent)
                .ok();
        }
    }
}

impl Waiting {
    /// From the samples of a run; `None` without any.
    pub(crate) fn of(samples: &[f64], at_the_end: Option<f64>) -> Option<Self> {
        let last_under_load = *samples.last()?;
        let (first, second) = samples.split_at(samples.len() / 2);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / (part.len().max(1) as f64);
        Some(Self {
            mean_of_first_half: mean(first),
            mean_of_second_half: mean(second),
            max: samples.iter().copied().fold(0.0, f64::max),
            last_under_load,
            at_the_end,
        })
    }
}

impl Report {
    /// Whether the books balance and nothing was seen that was not sent.
    pub(crate) fn passed(&self) -> bool {
        self.books.balanced != Some(false) && self.probe.as_ref().is_none_or(|p| p.overcounted == 0)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.server.lines("server", &mut text);
        if let Some(probe) = &self.probe {
            let line = probe.accepted_to_visible.line();
            writeln!(text, "{:<10} accepted → visible: {line}", "").ok();
            writeln!(text, "{:<10} reading tokens:     {}", "", probe.read.line()).ok();
        }
        if let Some(Waiting { mean_of_first_half, mean_of_second_half, max, .. }) =
            self.records_waiting
        {
            writeln!(
                text,
                "{:<10} records waiting: {mean_of_first_half:.0} in the first half, \
                 {mean_of_second_half:.0} in the second, at most {max:.0}",
                ""
            )
            .ok();
        }
        if let Some(yardstick) = &self.yardstick {
            yardstick.lines("yardstick", &mut text);
        }
        if let Some(ratio) = self.ratio {
            writeln!(text, "{:<10} {:.3} of the yardstick", "ratio", ratio.events_per_second).ok();
        }
        let BooksSummary { sent, acknowledged, in_doubt, refused } = self.books.listed;
        let verdict = match self.books.balanced {
            Some(true) => "balanced",
            Some(false) => "NOT BALANCED",
            None => "not compared",
        };
        writeln!(
            text,
            "{:<10} {verdict}: {sent} events sent, {acknowledged} acknowledged, {in_doubt} in doubt, \
             {refused} refused",
            "books"
        )
        .ok();
        for difference in self.books.audit.iter().flat_map(|audit| &audit.differences) {
            writeln!(text, "{:<10} {difference}", "").ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn side(accepted: u64, cpu: f64) -> Side {
        let mut tally = Tally::new().unwrap();
        tally.outcomes.accepted = accepted;
        tally.measured = Duration::from_secs(10);
        let observed = Observed { cpu_seconds: Some(cpu), ..Observed::default() };
        Side::new(&tally, vec![], observed)
    }

    #[test]
    fn the_ratio_is_of_throughput_and_of_cpu_for_each_event() {
        let (server, yardstick) = (side(100_000, 10.0), side(400_000, 10.0));
        assert!((server.events_per_second - 10_000.0).abs() < 0.01);
        assert!((server.cpu_micros_per_event.unwrap() - 100.0).abs() < 0.01);
        let ratio = server.over(&yardstick);
        assert!((ratio.events_per_second - 0.25).abs() < 1e-9);
        assert!((ratio.cpu_per_event.unwrap() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn growing_waiting_records_show_in_the_halves() {
        let waiting = Waiting::of(&[0.0, 10.0, 20.0, 30.0], Some(0.0)).unwrap();
        assert!((waiting.mean_of_first_half - 5.0).abs() < 1e-9);
        assert!((waiting.mean_of_second_half - 25.0).abs() < 1e-9);
        assert!((waiting.max - 30.0).abs() < 1e-9);
        assert_eq!(Waiting::of(&[], None), None);
    }
}
