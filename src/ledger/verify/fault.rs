//! Inconsistencies in a book, and the checks that find them.

use std::fmt;

use serde::Serialize;

/// Kind of check. Each variant states the rule that the check verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Each seq is the successor of the previous seq.
    Gap,
    /// Both balances after a transfer equal the previous balances of its accounts, changed by its amount.
    RunningBalance,
    /// Each balance is within the floor and ceiling of its account's class.
    Floor,
    /// Both accounts of a transfer exist and have the same currency, and the kind of the transfer is known.
    Shape,
    /// The balances of each currency add up to zero.
    Conservation,
    /// Each seal names the previous seal and is not older than it, and its hash equals the hash recomputed from the
    /// rows.
    Chain,
    /// The seal that an anchor names still has the anchor's hash.
    Anchor,
    /// A leg that touches several books has matching rows in all of them.
    Copies,
}

impl CheckKind {
    pub const ALL: [Self; 8] = [
        Self::Gap,
        Self::RunningBalance,
        Self::Floor,
        Self::Shape,
        Self::Conservation,
        Self::Chain,
        Self::Anchor,
        Self::Copies,
    ];

    /// Name of the check in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::RunningBalance => "running_balance",
            Self::Floor => "floor",
            Self::Shape => "shape",
            Self::Conservation => "conservation",
            Self::Chain => "chain",
            Self::Anchor => "anchor",
            Self::Copies => "copies",
        }
    }
}

/// An inconsistency in a book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BookFault {
    pub check: CheckKind,
    /// The inconsistent row, such as `transfer 5`.
    pub place: String,
    pub detail: String,
}

impl fmt::Display for BookFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.detail)
    }
}
