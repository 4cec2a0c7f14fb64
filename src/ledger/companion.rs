//! Companions: rows of other slices that commit together with the money they belong to.
//!
//! A slice declares a [`CompanionKind`] in its `sql.rs` and lists it where the ledger is started.
//! Its statement takes many rows at once and ends with a common table expression `took (n)`: the numbers of the
//! rows that took effect. An insert that conflicts, or a change whose condition no longer holds, did not;
//! then the posting that brought the row is refused, and its neighbours are not disturbed.
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
//! `n` and `seq` (of the first leg of the posting) are filled in by the ledger, the rest is the slice's.
//! Two rows of one batch that name the same thing: `distinct on` or a unique key must let only one of them take effect.

use serde::Serialize;
use std::fmt::Write as _;

/// What follows a companion's statement: an error, and so a rollback, unless every row took effect.
const ALL_TOOK: &str = "\nselect ledger.all_took($1::int, array(select n from took))";

/// A statement that a slice has registered.
#[derive(Debug, PartialEq, Eq)]
pub struct CompanionKind {
    /// For logs and metrics.
    pub name: &'static str,
    /// See the module's header.
    pub sql: &'static str,
}

impl CompanionKind {
    /// The statement as it is sent: `$1` is the number of rows, `$2` their JSON array.
    pub fn statement(&self) -> String {
        format!("{}{ALL_TOOK}", self.sql.trim_end())
    }
}

/// One row for one registered statement.
#[derive(Debug, Clone)]
pub struct Companion {
    pub(super) kind: &'static CompanionKind,
    pub(super) refusal: &'static str,
    /// A JSON object without its opening brace, so that `n` and `seq` can be put before it.
    rest: String,
}

impl Companion {
    /// `row` must be a struct (or a map); `refusal` is what the caller gets when the row does not take effect.
    pub fn new(
        kind: &'static CompanionKind,
        row: &impl Serialize,
        refusal: &'static str,
    ) -> serde_json::Result<Self> {
        let mut rest = serde_json::to_string(row)?;
        if !rest.starts_with('{') {
            return Err(serde::ser::Error::custom("a companion is an object"));
        }
        rest.remove(0);
        Ok(Self { kind, refusal, rest })
    }

    /// Appends the row to an open JSON array.
    pub(super) fn write(&self, n: i32, seq: i64, array: &mut String) {
        array.push(if n == 0 { '[' } else { ',' });
        let comma = if self.rest == "}" { "" } else { "," };
        write!(array, "{{\"n\":{n},\"seq\":{seq}{comma}{}", self.rest)
            .expect("a string takes it all");
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
    fn rows_become_one_array_with_their_number_and_seq() {
        let mut array = String::new();
        Companion::new(&KIND, &Row { game: 7 }, "owned").unwrap().write(0, 100, &mut array);
        Companion::new(&KIND, &Empty {}, "owned").unwrap().write(1, 101, &mut array);
        array.push(']');

        assert_eq!(array, r#"[{"n":0,"seq":100,"game":7},{"n":1,"seq":101}]"#);
        assert!(Companion::new(&KIND, &7, "owned").is_err());
    }
}
