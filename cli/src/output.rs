//! What commands print, and how they end.

use std::fmt;
use std::io::Write as _;

use serde::Serialize;

/// How a command ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit status 0.
    Success,
    /// The answer is no: exit status 1.
    Negative,
}

impl Outcome {
    /// `Success` when `good`.
    pub(crate) const fn of(good: bool) -> Self {
        if good { Self::Success } else { Self::Negative }
    }
}

/// The command line asks for something that is never possible: exit status 2.
#[derive(Debug)]
pub(crate) struct WrongUse(pub(crate) String);

impl fmt::Display for WrongUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// Prints one line, or several, to standard output. A reader that went away is no error.
pub(crate) fn say(text: impl fmt::Display) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Prints to standard error.
pub(crate) fn complain(text: impl fmt::Display) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Prints one JSON document on one line, which `sed` and `jq` take alike.
pub(crate) fn say_json(document: &impl Serialize) -> anyhow::Result<()> {
    say(serde_json::to_string(document)?);
    Ok(())
}

/// Prints rows with columns aligned.
pub(crate) fn say_table(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|title| title.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    say(line(&mut header.iter().copied()));
    for row in rows {
        say(line(&mut row.iter().map(String::as_str)));
    }
}
