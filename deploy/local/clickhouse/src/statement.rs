//! Where the text of an INSERT ends and its data begins.
//!
//! The engine cuts inline data at certain byte pairs, so data never goes through the statement:
//! `INSERT INTO t (a) FORMAT RowBinary` + data becomes
//! `INSERT INTO t (a) FROM INFILE '…' COMPRESSION 'none' FORMAT RowBinary`. `VALUES` stays inline:
//! that the engine reads with its own parser.

/// An INSERT whose data follows its text.
#[derive(Debug, PartialEq, Eq)]
pub struct DataInsert {
    /// `INSERT INTO t (a)`.
    head: String,
    /// `SETTINGS … FORMAT RowBinary`.
    tail: String,
    /// Where the data begins in the text that was given.
    pub data_at: usize,
}

impl DataInsert {
    /// Splits the statement; `None` when it is not an INSERT with a `FORMAT` and data after it.
    pub fn split(text: &[u8]) -> Option<Self> {
        let mut words = Words { text, at: 0 };
        if !words.next()?.is("insert") {
            return None;
        }
        let mut settings_at = None;
        loop {
            let word = words.next()?;
            if ["select", "values", "with", "watch"].iter().any(|keyword| word.is(keyword)) {
                return None;
            }
            // Data that is already in a file.
            if word.is("from") {
                return None;
            }
            if word.is("settings") {
                settings_at = Some(word.at);
            }
            if word.is("format") {
                words.next()?;
                let cut = settings_at.unwrap_or(word.at);
                let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
                return Some(Self {
                    head: string(&text[..cut])?,
                    tail: string(&text[cut..words.at])?,
                    data_at: data_start(text, words.at),
                });
            }
        }
    }

    /// The statement that reads its data from a file.
    pub fn reading(&self, path: &str) -> String {
        let path = path.replace('\\', "\\\\").replace('\'', "\\'");
        format!("{} FROM INFILE '{path}' COMPRESSION 'none' {}", self.head, self.tail)
    }
}

/// The first word of a statement in lower case, comments skipped.
pub fn verb(text: &[u8]) -> String {
    Words { text, at: 0 }
        .next()
        .map(|word| String::from_utf8_lossy(word.text).to_ascii_lowercase())
        .unwrap_or_default()
}

/// Data begins behind the spaces and the one line break after the format's name.
fn data_start(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
        at += 1;
    }
    if text.get(at) == Some(&b';') {
        at += 1;
    }
    if text.get(at) == Some(&b'\n') { at + 1 } else { at }
}

struct Word<'a> {
    at: usize,
    text: &'a [u8],
}

impl Word<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }
}

/// The bare words outside brackets, quotes and comments.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let mut depth = 0_usize;
        loop {
            let rest = self.text.get(self.at..)?;
            match *rest.first()? {
                quote @ (b'\'' | b'"' | b'`') => self.skip_quoted(quote),
                b'(' | b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                b'-' if rest.starts_with(b"--") => self.skip_past(b"\n"),
                b'/' if rest.starts_with(b"/*") => self.skip_past(b"*/"),
                byte if is_word(byte) => {
                    let length = rest.iter().take_while(|byte| is_word(**byte)).count();
                    let at = self.at;
                    self.at += length;
                    // `db.format` is a name, not a keyword.
                    let qualified = at > 0 && self.text[at - 1] == b'.';
                    if depth == 0 && !qualified {
                        return Some(Word { at, text: &rest[..length] });
                    }
                }
                _ => self.at += 1,
            }
        }
    }
}

impl Words<'_> {
    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == quote {
                return;
            }
        }
    }

    fn skip_past(&mut self, end: &[u8]) {
        let rest = &self.text[self.at..];
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at += found.map_or(rest.len(), |position| position + end.len());
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> Option<(String, String)> {
        let insert = DataInsert::split(text.as_bytes())?;
        Some((insert.reading("/f"), text[insert.data_at..].to_owned()))
    }

    #[test]
    fn the_data_of_an_insert_moves_into_a_file() {
        for (text, statement, data) in [
            (
                "INSERT INTO t FORMAT RowBinary",
                "INSERT INTO t  FROM INFILE '/f' COMPRESSION 'none' FORMAT RowBinary",
                "",
            ),
            (
                "insert into `a.format`.t(`b`, \"format\") settings x='FORMAT' format CSV\n1,2",
                "insert into `a.format`.t(`b`, \"format\")  FROM INFILE '/f' COMPRESSION 'none' \
                 settings x='FORMAT' format CSV",
                "1,2",
            ),
            (
                "/* FORMAT */ INSERT INTO db.format -- FORMAT\n FORMAT TSV ;\n\n1",
                "/* FORMAT */ INSERT INTO db.format -- FORMAT\n  FROM INFILE '/f' COMPRESSION 'none' \
                 FORMAT TSV",
                "\n1",
            ),
        ] {
            assert_eq!(rewritten(text), Some((statement.to_owned(), data.to_owned())), "{text}");
        }
    }

    #[test]
    fn other_statements_stay_as_they_are() {
        for text in [
            "",
            "SELECT 1 FORMAT CSV",
            "INSERT INTO t VALUES (1, 'FORMAT CSV')",
            "INSERT INTO t SELECT 1 FORMAT CSV",
            "INSERT INTO t FROM INFILE '/x' FORMAT CSV",
            "INSERT INTO t",
            "INSERT INTO t FORMAT",
        ] {
            assert_eq!(rewritten(text), None, "{text}");
        }
    }

    #[test]
    fn the_verb_is_found_behind_comments() {
        assert_eq!(verb(b" -- hello\n/* x */ (SELECT 1)"), "");
        assert_eq!(verb(b" -- hello\n/* x */ Select 1"), "select");
    }
}
