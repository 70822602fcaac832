//! Loads a running tokenmeter over HTTP and reports how fast it was, and whether it kept its
//! promise: what it acknowledged is counted, each event once, and nothing else is.
//!
//! A black box: it knows the contract and nothing of the product's code.

mod books;
mod client;
mod latencies;
mod load;
mod observe;
mod options;
mod probe;
mod report;
mod run;
mod schedule;
mod setup;
mod traffic;
mod yardstick;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some(yardstick::SERVE) {
        yardstick::serve()?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = options::Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run::run(options))?;
    let json = serde_json::to_string_pretty(&report)?;
    match &report.options.report {
        Some(file) => std::fs::write(file, format!("{json}\n"))
            .with_context(|| format!("writing {}", file.display()))?,
        None => writeln!(std::io::stdout(), "{json}")?,
    }
    write!(std::io::stderr(), "{}", report.text())?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
