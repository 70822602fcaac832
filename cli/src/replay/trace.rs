//! Reads a trace of model calls: CSV with a header, one call a row.
//!
//! The published traces have CRLF line ends, fractions of seven digits, times with or without an
//! offset, and no final newline.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use metering::time::Timestamp;
use metering::usage::TOKENS_MAX;

/// One model call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) occurred_at: Timestamp,
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
}

/// A trace: at least one row, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// Names the content, whatever the file is called: event ids are made from it.
    pub(super) digest: String,
    pub(super) rows: Vec<Row>,
}

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

impl Trace {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let content =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(&content).with_context(|| path.display().to_string())
    }

    pub(super) fn read(content: &[u8]) -> anyhow::Result<Self> {
        // The library counts lines by what it has read, and it reads "\n" with the next record.
        let pairs = content.iter().zip(content.iter().skip(1).chain([&0]));
        let lines: Vec<u8> =
            pairs.filter(|pair| *pair != (&b'\r', &b'\n')).map(|(byte, _)| *byte).collect();
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&lines[..]);
        let header = reader.headers().context("line 1")?.clone();
        let place = |column: &str| {
            let found =
                header.iter().position(|name| name.trim_start_matches('\u{feff}') == column);
            found.ok_or_else(|| anyhow!("line 1: there is no column {column}: {header:?}"))
        };
        let [time, prompt, completion] = COLUMNS.map(place);
        let (time, prompt, completion) = (time?, prompt?, completion?);
        let mut rows = Vec::new();
        for record in reader.records() {
            // The error of the library names the line itself.
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            let field = |place: usize| record.get(place).unwrap_or_default();
            let count = |place: usize| {
                tokens(field(place)).with_context(|| format!("line {line}, {}", &header[place]))
            };
            rows.push(Row {
                occurred_at: instant(field(time))
                    .with_context(|| format!("line {line}, {}", &header[time]))?,
                prompt_tokens: count(prompt)?,
                completion_tokens: count(completion)?,
            });
        }
        if rows.is_empty() {
            bail!("the trace has no rows");
        }
        let digest = blake3::hash(content).to_hex()[..16].to_owned();
        Ok(Self { digest, rows })
    }

    pub(super) fn first(&self) -> Timestamp {
        self.rows.iter().map(|row| row.occurred_at).min().unwrap_or_default()
    }

    pub(super) fn last(&self) -> Timestamp {
        self.rows.iter().map(|row| row.occurred_at).max().unwrap_or_default()
    }

    pub(super) fn span(&self) -> Duration {
        self.last().since(self.first())
    }
}

/// `2023-11-16 18:15:46.6805900`, in UTC unless an offset says otherwise.
fn instant(text: &str) -> anyhow::Result<Timestamp> {
    let mut written = text.replacen(' ', "T", 1);
    let has_offset = written.get(19..).is_some_and(|rest| rest.contains(['Z', 'z', '+', '-']));
    if !has_offset {
        written.push('Z');
    }
    written
        .parse()
        .map_err(|_| anyhow!("{text:?} is not a time such as 2023-11-16 18:15:46.6805900"))
}

fn tokens(text: &str) -> anyhow::Result<u32> {
    let count = text.parse::<u32>().ok().filter(|count| u64::from(*count) <= TOKENS_MAX);
    count.ok_or_else(|| anyhow!("{text:?} is not a number from 0 to {TOKENS_MAX}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
                         2023-11-16 18:15:46.6805900,374,44\r\n\
                         2023-11-16 18:15:50.9951690,396,109";

    fn wrong(text: &str) -> String {
        format!("{:#}", Trace::read(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn the_published_shape_is_read() {
        let trace = Trace::read(SMALL.as_bytes()).unwrap();
        assert_eq!(trace.rows.len(), 2);
        assert_eq!(trace.rows[0].occurred_at.to_string(), "2023-11-16T18:15:46.680Z");
        assert_eq!(trace.rows[1].prompt_tokens, 396);
        assert_eq!(trace.rows[1].completion_tokens, 109);
        assert_eq!(trace.span(), Duration::from_millis(4315));
        let with_offset = SMALL.replace("46.6805900", "46.680590+00:00");
        assert_eq!(Trace::read(with_offset.as_bytes()).unwrap().rows, trace.rows);
        let with_mark = format!("\u{feff}{}\n", SMALL.replace('\r', ""));
        assert_eq!(Trace::read(with_mark.as_bytes()).unwrap().rows, trace.rows);
    }

    #[test]
    fn the_digest_is_of_the_content() {
        let digest = |text: &str| Trace::read(text.as_bytes()).unwrap().digest;
        assert_eq!(digest(SMALL), digest(SMALL));
        assert_ne!(digest(SMALL), digest(&SMALL.replace("109", "110")));
    }

    #[test]
    fn an_error_names_line_and_column() {
        assert!(wrong(&SMALL.replace("396", "-1")).contains("line 3, ContextTokens: \"-1\""));
        assert!(wrong(&SMALL.replace("109", "1.5")).contains("line 3, GeneratedTokens"));
        assert!(wrong(&SMALL.replace("18:15:46", "18-15-46")).contains("line 2, TIMESTAMP"));
        assert!(
            wrong(&SMALL.replace(",109", "")).contains("line: 3"),
            "{}",
            wrong(&SMALL.replace(",109", ""))
        );
        assert!(wrong("a,b,c\r\n1,2,3").contains("line 1: there is no column TIMESTAMP"));
        assert!(wrong("TIMESTAMP,ContextTokens,GeneratedTokens\r\n").contains("no rows"));
        assert!(wrong("").contains("line 1"));
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Trace::read(&content));
            let mut with_header = b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n".to_vec();
            with_header.extend(content);
            drop(Trace::read(&with_header));
        }
    }
}
