//! What the command line says.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::{Serialize, Serializer};

/// Loads a running tokenmeter over HTTP, checks that what it acknowledged was counted exactly once,
/// and prints one JSON report.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "loadtest", version)]
pub(crate) struct Options {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// A file that holds an API key with the scopes users, ingest and usage:read.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) api_key_file: PathBuf,
    /// Where the server shows its metrics: adds the records waiting to the report.
    #[arg(long)]
    pub(crate) ops_url: Option<String>,
    /// The gauge of records waiting; all its samples are added up.
    #[arg(long, default_value = "tokenmeter_records_waiting")]
    pub(crate) waiting_metric: String,
    /// The server's process id: adds its CPU time and memory to the report.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Another process to watch, such as kafka=4711; repeatable.
    #[arg(long = "process", value_name = "NAME=PID", value_parser = read_process)]
    pub(crate) processes: Vec<(String, u32)>,
    /// Events a second, sent on schedule whatever the server does; or max: each connection sends
    /// the next request when it has the answer to the last.
    #[arg(long, default_value = "max")]
    pub(crate) rate: Rate,
    /// Events in a request; 1 uses the call for single events.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Connections, all kept alive.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,
    /// Threads that share the connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) client_threads: u32,
    /// How long to load the server in all, such as 30s or 2m; warm-ups come on top.
    #[arg(long, default_value = "30s", value_parser = read_duration)]
    #[serde(serialize_with = "seconds")]
    pub(crate) duration: Duration,
    /// At the start of each window, not measured.
    #[arg(long, default_value = "1s", value_parser = read_duration)]
    #[serde(serialize_with = "seconds")]
    pub(crate) warmup: Duration,
    /// The duration is cut into so many windows, with one of the yardstick after each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) windows: u32,
    /// How long the yardstick runs in all; the same as the server unless said. 0s for none.
    #[arg(long, value_parser = read_duration)]
    #[serde(skip)]
    pub(crate) yardstick: Option<Duration>,
    /// How many users are made for the run.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) users: u32,
    /// The share of events that were sent before.
    #[arg(long, default_value_t = 0.01, value_parser = read_share)]
    pub(crate) repeats: f64,
    /// The share of events of users on the free plan, who are soon over their limits.
    #[arg(long, default_value_t = 0.01, value_parser = read_share)]
    pub(crate) over_limit: f64,
    /// How often a request without a clear answer is sent again.
    #[arg(long, default_value_t = 0)]
    pub(crate) retries: u32,
    /// How the client's list is compared at the end: each event, sums of each user, or not at all.
    #[arg(long, value_enum, default_value_t = Comparison::History)]
    pub(crate) books: Comparison,
    /// Measures how long an acknowledged event takes to be seen.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) probe: bool,
    /// Decides which events are sent: the same seed, the same traffic.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where the report goes; standard output unless said.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) report: Option<PathBuf>,
}

fn read_process(text: &str) -> Result<(String, u32), &'static str> {
    let (name, pid) = text.split_once('=').ok_or("must be NAME=PID")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| "must be NAME=PID")?))
}

/// How the client's list is compared with the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Comparison {
    /// Event by event, over the history of each user.
    History,
    /// By sums of each user: for runs of many millions.
    Totals,
    /// Not at all.
    None,
}

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// As fast as answers come: finds the limit.
    Max,
    /// Events a second.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.replace('_', "").parse() {
            Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(Self::PerSecond(rate)),
            _ => Err("must be max or a number of events a second, such as 20000"),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Max => serializer.serialize_str("max"),
            Self::PerSecond(rate) => serializer.serialize_f64(*rate),
        }
    }
}

fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

fn read_duration(text: &str) -> Result<Duration, &'static str> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("must have the unit ms, s, m or h"),
    };
    let seconds = number.parse::<f64>().map_err(|_| "must be a number with a unit, such as 30s")?;
    Duration::try_from_secs_f64(seconds * scale).map_err(|_| "must not be negative")
}

fn read_share(text: &str) -> Result<f64, &'static str> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or("must be a share from 0 to 1, such as 0.01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!(read_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(read_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(read_duration("30"), Ok(Duration::from_secs(30)));
        for text in ["", "s", "-1s", "3 parsecs", "1d"] {
            assert!(read_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_max_or_a_positive_number() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("40_000".parse(), Ok(Rate::PerSecond(40_000.0)));
        for text in ["0", "-1", "fast", "NaN", "inf"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_reads() {
        let line = ["loadtest", "--api-key-file", "key", "--rate", "20000", "--batch", "100"];
        let options = Options::try_parse_from(line).unwrap();
        assert_eq!((options.rate, options.batch), (Rate::PerSecond(20_000.0), 100));
        assert!(
            Options::try_parse_from(["loadtest", "--api-key-file", "k", "--repeats", "2"]).is_err()
        );
    }
}
