//! Conversion of CSV rows to JSON objects, so that the same parser validates both import formats.

use csv_core::{ReadRecordResult, Reader};
use serde_json::Value;

use super::records::RECORD_BYTES_MAX;
use crate::error::FieldError;
use crate::games::catalog::PRICES_MAX;
use crate::ledger::currency::Currencies;

/// Columns that map to fields of the JSON object of a game.
const MEMBERS: [&str; 11] = [
    "reference",
    "title",
    "genre",
    "price",
    "description",
    "currency",
    "publisher",
    "state",
    "base",
    "base_reference",
    "copies",
];

/// Columns that the header must have.
const REQUIRED: [&str; 3] = ["title", "genre", "price"];

/// Prefix of the names of columns with prices in currencies other than the main currency, such as `price:USD`.
const PRICE: &str = "price:";

const COLUMNS_MAX: usize = MEMBERS.len() + PRICES_MAX;

/// Parser of the rows of a CSV file. The header of the file names the columns.
pub(super) struct CsvParser {
    columns: Vec<String>,
    reader: Reader,
    fields: Vec<u8>,
    /// Positions in `fields` at which the fields of the latest row end.
    ends: Vec<usize>,
    /// Indexes of the `price:` columns that are not empty in the latest row.
    prices: Vec<usize>,
}

impl CsvParser {
    /// Creates a parser from the header of a CSV file. Returns an error if the columns are not valid.
    pub(super) fn new(header: &[u8], currencies: &Currencies) -> Result<Self, String> {
        let mut parser = Self {
            columns: Vec::new(),
            reader: Reader::new(),
            fields: vec![0; RECORD_BYTES_MAX],
            ends: vec![0; COLUMNS_MAX],
            prices: Vec::new(),
        };
        let count = parser.split(header)?;
        for n in 0..count {
            let name = parser.field(n).map_err(|_| "is not valid UTF-8")?.trim().to_owned();
            let currency = name.strip_prefix(PRICE);
            if let Some(code) = currency {
                currencies.supported(code).map_err(|why| format!("{name} {why}"))?;
            } else if !MEMBERS.contains(&name.as_str()) {
                let known = MEMBERS.join(", ");
                return Err(format!("has the unknown column `{name}`: use {known}, {PRICE}USD"));
            }
            if parser.columns.contains(&name) {
                return Err(format!("has the column {name} twice"));
            }
            parser.columns.push(name);
        }
        let missing = REQUIRED.iter().find(|name| !parser.columns.iter().any(|own| own == *name));
        missing.map_or(Ok(parser), |name| Err(format!("has no column {name}")))
    }

    /// Converts a row to a JSON object, omitting empty fields.
    pub(super) fn json(&mut self, row: &[u8]) -> Result<String, FieldError> {
        let refused =
            |pointer: &str, detail: String| FieldError { pointer: pointer.to_owned(), detail };
        let count = self.split(row).map_err(|detail| refused("", detail))?;
        if count != self.columns.len() {
            let detail = format!("has {count} fields, the header has {}", self.columns.len());
            return Err(refused("", detail));
        }
        self.prices.clear();
        let (mut members, mut prices) = (Vec::new(), Vec::new());
        for (n, name) in self.columns.iter().enumerate() {
            let field = self.field(n);
            let field = field.map_err(|_| refused(name, "is not valid UTF-8".to_owned()))?;
            if field.is_empty() {
                continue;
            }
            let text = Value::from(field);
            if let Some(code) = name.strip_prefix(PRICE) {
                self.prices.push(n);
                prices.push(format!(r#"{{"currency":"{code}","price":{text}}}"#));
                continue;
            }
            // The field `copies` is a number in JSON; all other fields are strings.
            let copies = if name == "copies" { field.parse::<u32>().ok() } else { None };
            let value = copies.map_or(text, Value::from);
            members.push(format!(r#""{name}":{value}"#));
        }
        if !prices.is_empty() {
            members.push(format!(r#""prices":[{}]"#, prices.join(",")));
        }
        Ok(format!("{{{}}}", members.join(",")))
    }

    /// Returns the name of the CSV column that a field was read from. `pointer` is the JSON pointer to the field in the
    /// JSON object that was made from the last row.
    pub(super) fn column(&self, pointer: &str) -> String {
        let name = pointer.trim_start_matches('/');
        let price =
            name.strip_prefix("prices/").and_then(|rest| rest.split('/').next()?.parse().ok());
        let price = price.and_then(|n: usize| self.prices.get(n));
        price.map_or_else(|| name.to_owned(), |n| self.columns[*n].clone())
    }

    /// Splits a row into fields. Returns the number of fields.
    fn split(&mut self, row: &[u8]) -> Result<usize, String> {
        self.reader.reset();
        let (outcome, read, _, count) =
            self.reader.read_record(row, &mut self.fields, &mut self.ends);
        // The parser ends a row at a carriage return, and then leaves the line feed unread.
        let is_whole = matches!(&row[read..], [] | [b'\n']);
        match outcome {
            ReadRecordResult::Record if is_whole => Ok(count),
            ReadRecordResult::Record => {
                Err("has a carriage return outside of a quoted field".to_owned())
            }
            _ => Err(format!("has more than {COLUMNS_MAX} fields")),
        }
    }

    fn field(&self, n: usize) -> Result<&str, std::str::Utf8Error> {
        let begin = if n == 0 { 0 } else { self.ends[n - 1] };
        std::str::from_utf8(&self.fields[begin..self.ends[n]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(header: &str) -> Result<CsvParser, String> {
        CsvParser::new(header.as_bytes(), &Currencies::default())
    }

    #[test]
    fn a_row_becomes_an_object_without_its_empty_fields() {
        let mut parser =
            parser("title, genre ,price,price:USD,copies,price:JPY,reference\r\n").unwrap();

        let json = parser.json(b"\"a \"\"b\"\"\r\n,\\\",,1.50,,07,20,7\r\n").unwrap();

        let prices = r#"[{"currency":"JPY","price":"20"}]"#;
        let text = r#""title":"a \"b\"\r\n,\\","price":"1.50""#;
        assert_eq!(json, format!(r#"{{{text},"copies":7,"reference":"7","prices":{prices}}}"#));
        assert_eq!(parser.column("/prices/0/price"), "price:JPY");
        assert_eq!(parser.column("/title"), "title");
    }

    #[test]
    fn a_row_that_does_not_fit_the_header_is_refused() {
        let mut parser = parser("title,genre,price\n").unwrap();
        let mut why = |row: &[u8]| parser.json(row).map_err(|error| error.detail);

        assert_eq!(why(b"a,b\n"), Err("has 2 fields, the header has 3".to_owned()));
        assert_eq!(why(b"a,b,c,d\n"), Err("has 4 fields, the header has 3".to_owned()));
        let stray = "has a carriage return outside of a quoted field";
        assert_eq!(why(b"a,b\rc,d\n"), Err(stray.to_owned()));
        assert_eq!(why(b"a,\"b\"\rc,d\n"), Err(stray.to_owned()));
        let long = ",".repeat(COLUMNS_MAX) + "\n";
        assert_eq!(why(long.as_bytes()), Err(format!("has more than {COLUMNS_MAX} fields")));
        assert_eq!(why(b"a,b,\xff\n"), Err("is not valid UTF-8".to_owned()));
        assert_eq!(why(b"a,b,c\n").unwrap(), r#"{"title":"a","genre":"b","price":"c"}"#);
    }
}
