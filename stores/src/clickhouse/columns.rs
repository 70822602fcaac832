//! Rows on their way into a table, column by column: ClickHouse's format `Native`
//! (<https://clickhouse.com/docs/interfaces/formats/Native>).
//!
//! To take rows apart was half of what an insert cost the server; columns it takes as they are. The
//! client library's own blocks cost this side as much again as the server saves.

use bytes::Bytes;
use prost::encoding::encode_varint;

/// A block of some rows. The server finds the columns by their names, and converts the values of a
/// type that is not the table's.
pub(crate) struct Block<'a, T> {
    rows: &'a [T],
    columns: u64,
    body: Vec<u8>,
}

impl<'a, T> Block<'a, T> {
    /// The rows, of which there must be some: an empty block ends the insert.
    pub(crate) fn of(rows: &'a [T]) -> Self {
        Self { rows, columns: 0, body: Vec::new() }
    }

    /// Adds a column of values of `N` bytes each, the smallest byte first.
    #[must_use]
    pub(crate) fn fixed<const N: usize>(
        mut self,
        name: &str,
        kind: &str,
        value: impl Fn(&T) -> [u8; N],
    ) -> Self {
        self.begin(name, kind);
        self.body.reserve(self.rows.len() * N);
        for row in self.rows {
            self.body.extend_from_slice(&value(row));
        }
        self
    }

    /// Adds a column of type `String`.
    #[must_use]
    pub(crate) fn text<'t>(mut self, name: &str, value: impl Fn(&'a T) -> &'t str) -> Self {
        self.begin(name, "String");
        for row in self.rows {
            self.put(value(row).as_bytes());
        }
        self
    }

    fn begin(&mut self, name: &str, kind: &str) {
        self.columns += 1;
        self.put(name.as_bytes());
        self.put(kind.as_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        encode_varint(length(bytes.len()), &mut self.body);
        self.body.extend_from_slice(bytes);
    }

    /// What goes to the server, in two parts.
    pub(crate) fn finish(self) -> [Bytes; 2] {
        let mut head = Vec::new();
        encode_varint(self.columns, &mut head);
        encode_varint(length(self.rows.len()), &mut head);
        [head.into(), self.body.into()]
    }
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_its_columns_one_after_the_other() {
        let rows = [(1_u16, "one"), (513, "")];
        let block = Block::of(&rows)
            .fixed("number", "UInt16", |(number, _)| number.to_le_bytes())
            .text("name", |(_, name)| name);
        let bytes = block.finish().concat();
        assert_eq!(
            bytes,
            b"\x02\x02\x06number\x06UInt16\x01\x00\x01\x02\x04name\x06String\x03one\x00"
        );
    }
}
