//! Companions: rows of other modules (slices) that commit in the same transaction as their posting.
//!
//! A slice declares a [`CompanionKind`] in its `sql.rs` and registers it where the ledger is started. The SQL statement
//! of the kind takes many rows at once and ends with a common table expression `took (n)`, which contains the numbers
//! of the rows that took effect. An insert that conflicts, or an update whose condition no longer holds, does not take
//! effect; the posting of that row is then refused, and the other postings of the batch are written.
//!
//! ```sql
//! with input as (
//!     select * from json_to_recordset($2::text::json) as (n int, seq bigint, owner bigint, game bigint)
//! ), done as (
//!     insert into library (owner, game, transfer)
//!     select owner, game, seq from input
//!     on conflict do nothing
//!     returning owner, game
//! ), took as (
//!     select n from input join done using (owner, game)
//! )
//! ```
//!
//! The ledger fills in `n`, the number of the row, and `seq`, the seq of the posting's first leg; the slice provides
//! the other columns. If two rows of one batch conflict, `distinct on` or a unique key must let only one of them take
//! effect.

use serde::Serialize;
use std::fmt::Write as _;

/// End of every companion statement: raises an error, which rolls back the transaction, unless every row took effect.
const ALL_TOOK: &str = "\nselect ledger.all_took($1::int, array(select n from took))";

/// Kind of companion: rows of a module that commit together with a posting, and the SQL statement that writes them.
#[derive(Debug, PartialEq, Eq)]
pub struct CompanionKind {
    /// Name of the kind in logs and metrics.
    pub name: &'static str,
    /// SQL statement in the form that the documentation of [`companion`](self) describes.
    pub sql: &'static str,
}

impl CompanionKind {
    /// The complete statement. Its parameter `$1` is the number of rows, and `$2` is a JSON array of the rows.
    pub fn statement(&self) -> String {
        format!("{}{ALL_TOOK}", self.sql.trim_end())
    }
}

/// A companion: a row of another module that commits together with a posting.
#[derive(Debug, Clone)]
pub struct Companion {
    pub(super) kind: &'static CompanionKind,
    pub(super) refusal: &'static str,
    /// JSON object without its opening brace, so that `n` and `seq` can be prepended.
    members: String,
}

impl Companion {
    /// Creates a companion from `row`, a struct or a map. If the row does not take effect, the posting is refused with
    /// the error text `refusal`.
    pub fn new(
        kind: &'static CompanionKind,
        row: &impl Serialize,
        refusal: &'static str,
    ) -> serde_json::Result<Self> {
        let mut members = serde_json::to_string(row)?;
        if !members.starts_with('{') {
            return Err(serde::ser::Error::custom("a companion must serialize to an object"));
        }
        members.remove(0);
        Ok(Self { kind, refusal, members })
    }

    /// Creates a companion from the JSON members that another process has sent.
    pub(super) fn from_members(
        kind: &'static CompanionKind,
        members: String,
        refusal: &'static str,
    ) -> Self {
        Self { kind, refusal, members }
    }

    pub(super) fn members(&self) -> &str {
        &self.members
    }

    /// Appends the row to an unfinished JSON array; the row with `n` = 0 begins the array.
    pub(super) fn write(&self, n: i32, seq: i64, array: &mut String) {
        array.push(if n == 0 { '[' } else { ',' });
        let comma = if self.members == "}" { "" } else { "," };
        write!(array, "{{\"n\":{n},\"seq\":{seq}{comma}{}", self.members)
            .expect("writing to a string never fails");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static KIND: CompanionKind =
        CompanionKind { name: "test", sql: "with took as (select 0 as n)\n" };

    #[derive(Serialize)]
    struct Row {
        game: i64,
    }
    #[derive(Serialize)]
    struct Empty {}

    #[test]
    fn rows_are_written_as_one_array_with_number_and_seq() {
        let mut array = String::new();
        Companion::new(&KIND, &Row { game: 7 }, "owned").unwrap().write(0, 100, &mut array);
        Companion::new(&KIND, &Empty {}, "owned").unwrap().write(1, 101, &mut array);
        array.push(']');

        assert_eq!(array, r#"[{"n":0,"seq":100,"game":7},{"n":1,"seq":101}]"#);
        assert!(Companion::new(&KIND, &7, "owned").is_err());
    }
}
