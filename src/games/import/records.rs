//! Splits a file to import into records. A record is a line of JSON, or a row of CSV, which can span several lines
//! because its quoted fields can contain line breaks.
//!
//! The memory that [`FileRecords`] needs is a small multiple of [`RECORD_BYTES_MAX`], regardless of the content of the
//! file. If a row has broken quotes, [`FileRecords`] refuses only the first line of the row and continues with the next
//! line, so that a missing quote does not swallow the rest of the file.

use std::io::{self, BufRead, Read};

use super::FileFormat;
use crate::http::BODY_BYTES_MAX;

/// Longest record of a file, in bytes: the same limit as for the body of a request.
pub(super) const RECORD_BYTES_MAX: usize = BODY_BYTES_MAX;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A record of a file, and the number of the line at which it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileRecord<'a> {
    pub line: u64,
    /// The bytes of the record up to and including a line feed, or the reason why the record is refused.
    pub bytes: Result<&'a [u8], &'static str>,
}

/// Reader that returns the records of a file one after the other.
pub(super) struct FileRecords<R> {
    source: R,
    format: FileFormat,
    /// Complete lines that were read from the file. The buffer begins with the previous record.
    buffer: Vec<u8>,
    /// End of the previous record in the buffer.
    consumed: usize,
    /// Number of the first line of the buffer.
    line: u64,
    bytes_read: u64,
}

/// State of [`FileRecords`] within a row of CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowState {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote within a quoted field: the quote ends the field, unless another quote follows.
    Closing,
    End,
    Broken,
}

impl RowState {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::End | Self::Broken, _) => self,
            // A line feed must follow a carriage return; otherwise, the field parser refuses the row.
            (Self::Quoted, b'"') | (Self::Closing, b'\r') => Self::Closing,
            (Self::Quoted, _) | (Self::FieldStart | Self::Closing, b'"') => Self::Quoted,
            (_, b',') => Self::FieldStart,
            (_, b'\n') => Self::End,
            (Self::Closing, _) => Self::Broken,
            (Self::FieldStart | Self::Unquoted, _) => Self::Unquoted,
        }
    }
}

impl<R: BufRead> FileRecords<R> {
    pub(super) fn new(source: R, format: FileFormat) -> Self {
        Self { source, format, buffer: Vec::new(), consumed: 0, line: 1, bytes_read: 0 }
    }

    /// Returns the number of bytes of the file that were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Returns the next record that is not empty; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<FileRecord<'_>>> {
        let (line, outcome) = loop {
            self.discard();
            let Some(outcome) = self.scan()? else { return Ok(None) };
            match &outcome {
                Ok(end) => self.consumed = *end,
                Err(_) => self.consumed = self.line_end(0).unwrap_or(self.buffer.len()),
            }
            let is_empty = self.buffer[..self.consumed].iter().all(u8::is_ascii_whitespace);
            if !is_empty || outcome.is_err() {
                break (self.line, outcome);
            }
        };
        Ok(Some(FileRecord { line, bytes: outcome.map(|end| &self.buffer[..end]) }))
    }

    /// Removes the previous record from the buffer.
    fn discard(&mut self) {
        let lines = self.buffer[..self.consumed].split(|byte| *byte == b'\n').count() - 1;
        self.line += lines as u64;
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
    }

    /// Finds the end of the record with which the buffer begins, or the reason to refuse that record.
    fn scan(&mut self) -> io::Result<Option<Result<usize, &'static str>>> {
        let mut state = RowState::FieldStart;
        let mut end = 0;
        loop {
            let Some(line_end) = self.line_end(end) else {
                if self.read_line()? {
                    continue;
                }
                return Ok((end > 0).then_some(Err("has a quoted field without an end")));
            };
            if line_end > RECORD_BYTES_MAX {
                let is_one_line = end == 0;
                let why =
                    if is_one_line { "is too long" } else { "has a quoted field that is too long" };
                return Ok(Some(Err(why)));
            }
            state = match self.format {
                FileFormat::Csv => {
                    self.buffer[end..line_end].iter().fold(state, |state, byte| state.after(*byte))
                }
                FileFormat::Jsonl => RowState::End,
            };
            match state {
                RowState::End => return Ok(Some(Ok(line_end))),
                RowState::Broken => {
                    return Ok(Some(Err("has text after the closing quote of a field")));
                }
                _ => end = line_end,
            }
        }
    }

    /// Returns the end of the line that begins at `begin`, if the buffer contains the whole line.
    fn line_end(&self, begin: usize) -> Option<usize> {
        let length = self.buffer[begin..].iter().position(|byte| *byte == b'\n')?;
        Some(begin + length + 1)
    }

    /// Appends a line of the file to the buffer. Returns false at the end of the file. Truncates a line that is too
    /// long, but leaves it longer than the limit, so that `scan` still refuses it.
    fn read_line(&mut self) -> io::Result<bool> {
        let is_first = self.bytes_read == 0;
        let mut part = self.source.by_ref().take(RECORD_BYTES_MAX as u64 + 1);
        let length = part.read_until(b'\n', &mut self.buffer)?;
        self.bytes_read += length as u64;
        if length == 0 {
            return Ok(false);
        }
        if !self.buffer.ends_with(b"\n") {
            self.bytes_read += self.source.skip_until(b'\n')? as u64;
            self.buffer.push(b'\n');
        }
        if is_first && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the line number and the text of each record, or the reason why the record is refused.
    fn records(format: FileFormat, text: &str) -> Vec<(u64, Result<String, &'static str>)> {
        let mut records = FileRecords::new(text.as_bytes(), format);
        let mut found = Vec::new();
        while let Some(FileRecord { line, bytes }) = records.next().unwrap() {
            let text = bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            found.push((line, text));
        }
        assert_eq!(records.bytes_read(), text.len() as u64);
        assert!(records.buffer.capacity() < 4 * RECORD_BYTES_MAX);
        found
    }

    fn texts(format: FileFormat, text: &str) -> Vec<(u64, String)> {
        let records = records(format, text).into_iter();
        records.map(|(line, text)| (line, text.expect("a sound record"))).collect()
    }

    #[test]
    fn rows_end_where_a_line_ends_outside_of_quotes() {
        let text = "\u{feff}a,b\r\n\r\n1,\"x\n\"\"y\"\", z\r\n\"\n  \n3,c\"d\n4";

        let found = texts(FileFormat::Csv, text);

        let expected =
            [(1, "a,b\r\n"), (3, "1,\"x\n\"\"y\"\", z\r\n\"\n"), (7, "3,c\"d\n"), (8, "4\n")];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn a_line_of_json_is_a_record() {
        let found = texts(FileFormat::Jsonl, "\u{feff}{\"a\":\"\\\"\"}\r\n\n \t\r\n{}");

        assert_eq!(found, [(1, "{\"a\":\"\\\"\"}\r\n".to_owned()), (4, "{}\n".to_owned())]);
    }

    #[test]
    fn a_broken_quote_costs_its_line_only() {
        for (broken, why) in [
            ("\"b,2\nc,3\n\"d\",4\n", "has text after the closing quote of a field"),
            ("\"b,2\nc,3\nd,4\n", "has a quoted field without an end"),
        ] {
            let found = records(FileFormat::Csv, &format!("a,1\n{broken}"));

            assert_eq!(found[1], (2, Err(why)));
            assert_eq!(found[2], (3, Ok("c,3\n".to_owned())));
            assert_eq!((found.len(), found[3].0, found[3].1.is_ok()), (4, 4, true));
        }
        let far = "x,y\n".repeat(RECORD_BYTES_MAX / 4 + 10);
        let found = records(FileFormat::Csv, &format!("\"b,2\n{far}"));
        assert_eq!(found[0], (1, Err("has a quoted field that is too long")));
        assert_eq!(found.len(), RECORD_BYTES_MAX / 4 + 11);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept() {
        let longest = "x".repeat(RECORD_BYTES_MAX - 1);
        for format in [FileFormat::Csv, FileFormat::Jsonl] {
            let text = format!("{longest}\n{longest}x\n{}\nb\n", longest.repeat(50));

            let found = records(format, &text);

            let lines: Vec<_> = found.iter().map(|(line, text)| (*line, text.is_ok())).collect();
            assert_eq!(lines, [(1, true), (2, false), (3, false), (4, true)]);
            assert_eq!(found[2].1, Err("is too long"));
        }
    }
}
