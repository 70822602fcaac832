//! Watches a server from outside while it is under load: CPU time and memory of its process and of
//! those it works with, and the records that wait to be counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::client::{Address, Api};

/// The unit of CPU times in `/proc`: part of the kernel's interface, the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

const SAMPLE_GAP: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// The server's process.
    pub(crate) pid: Option<u32>,
    /// Other processes, by name.
    pub(crate) others: Vec<(String, u32)>,
    /// Where its metrics are.
    pub(crate) ops: Option<Address>,
    /// The gauge of records waiting.
    pub(crate) waiting_metric: String,
}

/// What was seen in one or more windows.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Observed {
    /// Of the server's process, over the measured time.
    pub(crate) cpu_seconds: Option<f64>,
    /// The most that was seen.
    pub(crate) rss_bytes_max: Option<u64>,
    /// Of the other processes, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) processes: BTreeMap<String, ProcessUse>,
    /// Records waiting, in the order seen, about one a second.
    #[serde(skip)]
    pub(crate) waiting: Vec<f64>,
}

/// What a process took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ProcessUse {
    /// Over the measured time.
    pub(crate) cpu_seconds: f64,
    /// CPU seconds for a million answered events.
    pub(crate) cpu_seconds_per_million_events: f64,
    /// The most that was seen.
    pub(crate) rss_bytes_max: u64,
}

impl Observed {
    /// Adds what was seen later.
    pub(crate) fn add(&mut self, later: Self) {
        self.cpu_seconds = match (self.cpu_seconds, later.cpu_seconds) {
            (Some(earlier), Some(later)) => Some(earlier + later),
            (earlier, later) => earlier.or(later),
        };
        self.rss_bytes_max = self.rss_bytes_max.max(later.rss_bytes_max);
        self.waiting.extend(later.waiting);
        for (name, later) in later.processes {
            let known = self.processes.entry(name).or_default();
            known.cpu_seconds += later.cpu_seconds;
            known.rss_bytes_max = known.rss_bytes_max.max(later.rss_bytes_max);
        }
    }
}

impl Watched {
    /// Watches from `from` to `until`.
    pub(crate) async fn watch(&self, from: Instant, until: Instant) -> Observed {
        let mut observed = Observed::default();
        let mut ops = self.ops.clone().map(|address| Api::new(address, ""));
        tokio::time::sleep_until(from.into()).await;
        let cpu_before = self.pid.and_then(cpu_seconds);
        let others_before: Vec<_> = self.others.iter().map(|(_, pid)| cpu_seconds(*pid)).collect();
        let mut next = from;
        while next < until {
            if let Some(waiting) = self.waiting(&mut ops).await {
                observed.waiting.push(waiting);
            }
            observed.rss_bytes_max = observed.rss_bytes_max.max(self.pid.and_then(rss_bytes));
            for (name, pid) in &self.others {
                let process = observed.processes.entry(name.clone()).or_default();
                process.rss_bytes_max = process.rss_bytes_max.max(rss_bytes(*pid).unwrap_or(0));
            }
            next += SAMPLE_GAP;
            tokio::time::sleep_until(next.min(until).into()).await;
        }
        observed.cpu_seconds =
            cpu_before.zip(self.pid.and_then(cpu_seconds)).map(|(before, after)| after - before);
        for ((name, pid), before) in self.others.iter().zip(others_before) {
            if let Some((before, after)) = before.zip(cpu_seconds(*pid)) {
                observed.processes.entry(name.clone()).or_default().cpu_seconds = after - before;
            }
        }
        observed
    }

    /// Waits until no record waits, at most `patience`. Without metrics it cannot know and waits a
    /// second.
    pub(crate) async fn settle(&self, patience: Duration) {
        let mut ops = self.ops.clone().map(|address| Api::new(address, ""));
        let until = Instant::now() + patience;
        while Instant::now() < until {
            match self.waiting(&mut ops).await {
                Some(waiting) if waiting > 0.0 => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Some(_) => return,
                None => {
                    tokio::time::sleep(SAMPLE_GAP.min(patience)).await;
                    return;
                }
            }
        }
    }

    /// The records waiting now.
    pub(crate) async fn waiting_now(&self) -> Option<f64> {
        self.waiting(&mut self.ops.clone().map(|address| Api::new(address, ""))).await
    }

    async fn waiting(&self, ops: &mut Option<Api>) -> Option<f64> {
        let answer = ops.as_mut()?.get("/metrics", "text/plain").await.ok()?;
        sum_of(&self.waiting_metric, std::str::from_utf8(answer.body).ok()?)
    }
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    cpu_seconds_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn rss_bytes(pid: u32) -> Option<u64> {
    rss_bytes_in(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// User and system time in the text of `/proc/PID/stat`.
fn cpu_seconds_in(stat: &str) -> Option<f64> {
    // The name of the program stands in parentheses and may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn rss_bytes_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The sum of all samples of `metric`; `None` when there is none.
fn sum_of(metric: &str, exposition: &str) -> Option<f64> {
    exposition
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            let value = match rest.chars().next()? {
                '{' => rest.rsplit_once('}')?.1,
                ' ' => rest,
                _ => return None,
            };
            value.split_ascii_whitespace().next()?.parse::<f64>().ok()
        })
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_any_program_name() {
        let stat = "42 (a ) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 100 1 2";
        assert_eq!(cpu_seconds_in(stat), Some(3.0));
        assert_eq!(cpu_seconds_in("42"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(rss_bytes_in("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(rss_bytes_in("VmPeak:\t 9 kB\n"), None);
    }

    #[test]
    fn this_process_can_be_watched() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).is_some());
        assert!(rss_bytes(pid).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn samples_of_a_metric_are_added_up() {
        let text = "# HELP waiting Records.\nwaiting{partition=\"0\"} 5\nwaiting{partition=\"1\"} 7.5 123\n\
                    waiting_seconds 9\nother 1\n";
        assert_eq!(sum_of("waiting", text), Some(12.5));
        assert_eq!(sum_of("other", text), Some(1.0));
        assert_eq!(sum_of("missing", text), None);
    }
}
