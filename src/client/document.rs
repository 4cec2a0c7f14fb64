//! JSON objects exactly as the server wrote them: amounts keep their digits, and members keep their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object.
#[derive(Debug)]
pub(super) struct Document(Vec<(String, Box<RawValue>)>);

impl Document {
    /// Parses a JSON object that the server sent.
    pub(super) fn parse(json: &RawValue) -> anyhow::Result<Self> {
        Ok(serde_json::from_str(json.get())?)
    }

    /// Returns a member as text: a string without its quotes, and `-` for null or an absent member.
    pub(super) fn member(&self, name: &str) -> String {
        let member = self.0.iter().find(|(known, _)| known == name);
        member.map_or_else(|| "-".to_owned(), |(_, value)| text_of(value))
    }

    /// Formats the object as text, with a line for each member.
    pub(super) fn lines(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let line =
            |(name, value): &(String, Box<RawValue>)| format!("{name:<width$}  {}", text_of(value));
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn text_of(value: &RawValue) -> String {
    match value.get() {
        "null" => "-".to_owned(),
        json => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
    }
}

/// Formats objects as a table with a column for each of the given members.
pub(super) fn table(rows: &[Document], columns: &[&str]) -> String {
    let header = columns.iter().map(|name| (*name).to_owned()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|name| row.member(name)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(cells).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> =
        (0..columns.len()).map(|column| width(column).unwrap_or_default()).collect();
    let format = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(format).collect::<Vec<_>>().join("\n")
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Document;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Document, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Document(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_digits_and_members_their_order() {
        let json = r#"{"balance":90071992547409.910,"id":"7","closed_at":null,"metadata":{"a":1}}"#;
        let document: Document = serde_json::from_str(json).expect("the document is valid");

        let expected =
            "balance    90071992547409.910\nid         7\nclosed_at  -\nmetadata   {\"a\":1}";
        assert_eq!(document.lines(), expected);
        let expected = "id  balance             owner\n7   90071992547409.910  -";
        assert_eq!(table(&[document], &["id", "balance", "owner"]), expected);
    }
}
