//! What goes into the ledger and what comes out: kinds, legs, postings and rows.

use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::account::{AccountId, AccountState};
use super::companion::Companion;
use super::currency::Currency;
use super::money::Minor;
use crate::idempotency::HashedKey;

/// Most legs of one posting: an atomic batch of 10,000 transfers with a fee each. A `smallint` counts them.
pub const POSTING_LEGS_MAX: usize = 20_000;

/// Longest metadata of a leg: a row should fit its page.
pub const METADATA_LEN_MAX: usize = 4096;

/// What a transfer is for. The numbers are stored: never change one.
/// Below 10 it changes the state of an account, from 10 on it moves money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum TransferKind {
    Open = 1,
    Close = 2,
    Freeze = 3,
    Unfreeze = 4,
    Deposit = 10,
    Withdrawal = 11,
    Transfer = 12,
    Fee = 13,
    Hold = 14,
    Capture = 15,
    Void = 16,
    Expiry = 17,
    Refund = 18,
    Purchase = 19,
    Exchange = 20,
    Payout = 21,
    Adjustment = 22,
    Probe = 23,
}

impl TransferKind {
    pub const ALL: [Self; 18] = [
        Self::Open,
        Self::Close,
        Self::Freeze,
        Self::Unfreeze,
        Self::Deposit,
        Self::Withdrawal,
        Self::Transfer,
        Self::Fee,
        Self::Hold,
        Self::Capture,
        Self::Void,
        Self::Expiry,
        Self::Refund,
        Self::Purchase,
        Self::Exchange,
        Self::Payout,
        Self::Adjustment,
        Self::Probe,
    ];

    /// The number that is stored.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The kind with this number; `None` for one that a newer program wrote.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether it moves money (otherwise it changes the state of an account).
    pub const fn moves_money(self) -> bool {
        self.code() >= 10
    }

    /// The state of an account after it; nothing when it moves money.
    pub const fn state_after(self) -> Option<AccountState> {
        match self {
            Self::Open | Self::Unfreeze => Some(AccountState::Open),
            Self::Freeze => Some(AccountState::Frozen),
            Self::Close => Some(AccountState::Closed),
            _ => None,
        }
    }

    /// For labels and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
            Self::Deposit => "deposit",
            Self::Withdrawal => "withdrawal",
            Self::Transfer => "transfer",
            Self::Fee => "fee",
            Self::Hold => "hold",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Expiry => "expiry",
            Self::Refund => "refund",
            Self::Purchase => "purchase",
            Self::Exchange => "exchange",
            Self::Payout => "payout",
            Self::Adjustment => "adjustment",
            Self::Probe => "probe",
        }
    }
}

/// One line of a posting.
#[derive(Debug, Clone)]
pub struct Leg {
    pub action: Action,
    /// Belongs to the transfer of the leg before it, as a fee does: one id, one answer.
    pub with_previous: bool,
    /// The transfer that this one undoes or completes.
    pub linked: Option<i64>,
    /// Stored and hashed as the very bytes that were given.
    pub metadata: Option<Box<RawValue>>,
}

/// What a leg does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Money from one account to another.
    Move {
        kind: TransferKind,
        debit: AccountId,
        credit: AccountId,
        amount: Minor,
    },
    /// A new customer's account.
    Open {
        account: AccountId,
        currency: Currency,
    },
    /// For good; only when it and its hold account are empty.
    Close {
        account: AccountId,
    },
    Freeze {
        account: AccountId,
    },
    Unfreeze {
        account: AccountId,
    },
}

impl Action {
    pub const fn kind(&self) -> TransferKind {
        match self {
            Self::Move { kind, .. } => *kind,
            Self::Open { .. } => TransferKind::Open,
            Self::Close { .. } => TransferKind::Close,
            Self::Freeze { .. } => TransferKind::Freeze,
            Self::Unfreeze { .. } => TransferKind::Unfreeze,
        }
    }
}

impl From<Action> for Leg {
    fn from(action: Action) -> Self {
        Self { action, with_previous: false, linked: None, metadata: None }
    }
}

/// Legs that are written together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Posting {
    pub key: Option<HashedKey>,
    pub legs: Vec<Leg>,
    /// Rows of other slices that move with the money.
    pub companions: Vec<Companion>,
    /// Of the request that asks for it.
    pub trace_id: Option<Uuid>,
}

/// A transfer as it is in the book, but for its place, which its posting tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferRow {
    pub kind: TransferKind,
    /// Place among the legs that make up one transfer, and how many these are.
    pub leg: i16,
    pub legs: i16,
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Minor,
    pub debit_balance: Minor,
    pub credit_balance: Minor,
}

/// What a caller gets for a posting that is in the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The id of its first transfer.
    pub first_seq: i64,
    pub last_seq: i64,
    pub at: OffsetDateTime,
    /// It was in the book before: this is the first answer again.
    pub replayed: bool,
    /// One a leg, with the balances after it. The seq of the n-th is `first_seq + n`.
    pub rows: Vec<TransferRow>,
    /// What was held after it for the customers' accounts it touched; none where nothing was.
    pub held: Vec<(AccountId, Minor)>,
}

impl Posted {
    /// What this account could spend after it, if it touched the account.
    pub fn available(&self, account: AccountId) -> Option<Minor> {
        self.rows.iter().rev().find_map(|row| match account {
            account if account == row.credit => Some(row.credit_balance),
            account if account == row.debit => Some(row.debit_balance),
            _ => None,
        })
    }

    /// What was held for this account after it.
    pub fn held(&self, account: AccountId) -> Minor {
        let held = self.held.iter().find(|(id, _)| *id == account);
        held.map_or(Minor::ZERO, |(_, held)| *held)
    }
}
