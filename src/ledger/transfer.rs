//! Input and output types of the ledger: kinds, legs, postings and rows.

use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::account::{AccountId, AccountState};
use super::companion::Companion;
use super::currency::Currency;
use super::money::Minor;
use crate::idempotency_key::HashedKey;

/// Maximum number of legs (single movements of money, or changes of state) in a posting: enough for an atomic batch of
/// 10,000 transfers with a fee each. The number of legs is stored as a `smallint`.
pub const POSTING_LEGS_MAX: usize = 20_000;

/// Longest metadata of a leg, in bytes. With this limit, a row fits into a page of the database.
pub const METADATA_LEN_MAX: usize = 4096;

/// Kind of a transfer. `open`, `close`, `freeze` and `unfreeze` change the state of an account; the others move money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[repr(i16)]
#[schema(rename_all = "snake_case")]
pub enum TransferKind {
    // The numbers are stored, so they must never change. Numbers below 10 are changes of state.
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
    Tax = 22,
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
        Self::Tax,
        Self::Probe,
    ];

    /// The number under which the database stores the kind.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The kind with this number; `None` if this version of the program does not know the kind.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether a transfer of this kind moves money. If not, it changes the state of an account.
    pub const fn moves_money(self) -> bool {
        self.code() >= 10
    }

    /// The state of an account after a transfer of this kind; `None` for kinds that move money.
    pub const fn state_after(self) -> Option<AccountState> {
        match self {
            Self::Open | Self::Unfreeze => Some(AccountState::Open),
            Self::Freeze => Some(AccountState::Frozen),
            Self::Close => Some(AccountState::Closed),
            _ => None,
        }
    }

    /// Name of the kind in metric labels and responses.
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
            Self::Tax => "tax",
            Self::Probe => "probe",
        }
    }
}

/// Part of a posting: a single movement of money, or a change to an account's state.
#[derive(Debug, Clone)]
pub struct Leg {
    pub action: Action,
    /// Whether the leg belongs to the same transfer as the leg before it, as a fee does. Both legs then share an id and
    /// a response.
    pub with_previous: bool,
    /// The transfer that this leg reverses or completes.
    pub linked: Option<i64>,
    /// Metadata of the leg: JSON that is stored and hashed byte for byte.
    pub metadata: Option<Box<RawValue>>,
}

/// Effect of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Moves money from one account to another.
    Move {
        kind: TransferKind,
        debit: AccountId,
        credit: AccountId,
        amount: Minor,
    },
    /// Opens a customer account.
    Open {
        account: AccountId,
        currency: Currency,
    },
    /// Closes an account permanently. The account and its hold account must be empty.
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
    /// The amount that the action moves; zero if the action changes the state of an account.
    pub const fn amount(&self) -> Minor {
        match self {
            Self::Move { amount, .. } => *amount,
            _ => Minor::ZERO,
        }
    }

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

/// A set of legs (movements of money and changes of state) that is written atomically.
#[derive(Debug, Clone, Default)]
pub struct Posting {
    pub key: Option<HashedKey>,
    pub legs: Vec<Leg>,
    /// Rows of other modules, which are written in the same transaction as the legs.
    pub companions: Vec<Companion>,
    /// Trace of the request that the posting belongs to.
    pub trace_id: Option<Uuid>,
}

/// A stored leg without its seq. The leg's position in the posting determines the seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferRow {
    pub kind: TransferKind,
    /// Index of the leg within its transfer; `legs` is the number of legs in the transfer.
    pub leg: i16,
    pub legs: i16,
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Minor,
    pub debit_balance: Minor,
    pub credit_balance: Minor,
}

/// Acknowledgment of a committed posting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Seq of the posting's first row, which is the id of its first transfer.
    pub first_seq: i64,
    pub last_seq: i64,
    pub at: OffsetDateTime,
    /// Whether the posting was written by an earlier request with the same key.
    pub replayed: bool,
    /// A row for each leg, with the balances after it. Row `n` has the seq `first_seq + n`.
    pub rows: Vec<TransferRow>,
    /// Held balances of the touched customer accounts after the posting; accounts without held money are omitted.
    pub held: Vec<(AccountId, Minor)>,
}

impl Posted {
    /// The available balance of this account after the posting; `None` if the posting did not touch it.
    pub fn available(&self, account: AccountId) -> Option<Minor> {
        self.rows.iter().rev().find_map(|row| match account {
            account if account == row.credit => Some(row.credit_balance),
            account if account == row.debit => Some(row.debit_balance),
            _ => None,
        })
    }

    /// The held balance of this account after the posting.
    pub fn held(&self, account: AccountId) -> Minor {
        let held = self.held.iter().find(|(id, _)| *id == account);
        held.map_or(Minor::ZERO, |(_, held)| *held)
    }
}
