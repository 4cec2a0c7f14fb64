//! What can be wrong with a book, and where.

use std::fmt;

/// What a check holds a line against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// Each seq is one more than the one before.
    Gap,
    /// Both balances of a transfer, against the sums so far.
    RunningBalance,
    /// Floors and ceilings, by the class of each account.
    Floor,
    /// Both sides are accounts of one currency, and the kind is known.
    Shape,
    /// The balances of each currency add up to zero.
    Conservation,
    /// Each seal stands on the one before, in time and by its hash.
    Chain,
    /// A hash that was noted earlier is still the hash of that seal.
    Anchor,
}

impl Check {
    pub const ALL: [Self; 7] = [
        Self::Gap,
        Self::RunningBalance,
        Self::Floor,
        Self::Shape,
        Self::Conservation,
        Self::Chain,
        Self::Anchor,
    ];

    /// For labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::RunningBalance => "running_balance",
            Self::Floor => "floor",
            Self::Shape => "shape",
            Self::Conservation => "conservation",
            Self::Chain => "chain",
            Self::Anchor => "anchor",
        }
    }
}

/// Something that is not as it must be, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub check: Check,
    /// The row.
    pub place: String,
    pub says: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.says)
    }
}
