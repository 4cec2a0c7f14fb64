//! Reading the book: balances now and then, histories. Every read is a few index probes, whatever the size of the book.

mod sql;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::account::{AccountId, AccountState};
use super::money::Minor;
use super::transfer::{TransferKind, TransferRow};
use crate::error::Result;

/// Most entries of one page of a history.
pub const PAGE_MAX: i64 = 1000;

/// A place in the book that nothing is behind.
pub const END: i64 = i64::MAX;

/// One transfer as a customer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    pub seq: i64,
    /// The seq of the first leg: the transfer's id.
    pub transfer: i64,
    pub at: OffsetDateTime,
    pub kind: TransferKind,
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Minor,
    /// What could be spent after it.
    pub available: Minor,
    /// What was held after it.
    pub held: Minor,
    pub trace_id: Option<Uuid>,
    pub linked: Option<i64>,
    pub metadata: Option<String>,
}

/// Which part of a history, and from which end.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first seq that belongs to it.
    pub from: i64,
    /// The first seq behind it.
    pub before: i64,
    pub oldest_first: bool,
    pub limit: i64,
}

/// One row of the book, as it is stored.
#[derive(Debug, Clone)]
pub struct Line {
    pub seq: i64,
    pub debit: i64,
    pub credit: i64,
    pub amount: i64,
    pub debit_balance: i64,
    pub credit_balance: i64,
    pub at: OffsetDateTime,
    pub kind: i16,
    pub leg: i16,
    pub legs: i16,
    pub trace_id: Option<Uuid>,
    pub linked: Option<i64>,
    pub metadata: Option<String>,
}

impl Line {
    /// What the writer decided; `None` when a newer program wrote a kind that this one does not know.
    pub fn row(&self) -> Option<TransferRow> {
        Some(TransferRow {
            kind: TransferKind::from_code(self.kind)?,
            leg: self.leg,
            legs: self.legs,
            debit: AccountId(self.debit),
            credit: AccountId(self.credit),
            amount: Minor(self.amount),
            debit_balance: Minor(self.debit_balance),
            credit_balance: Minor(self.credit_balance),
        })
    }

    /// The seq of the first leg: the transfer's id.
    pub fn transfer(&self) -> i64 {
        self.seq - i64::from(self.leg)
    }
}

/// The rows behind `after`, up to `last`, at most `limit`.
pub async fn lines(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<Line>> {
    sql::lines(db, book, after, last, limit).await
}

/// The last seq that was in the book at that moment.
pub async fn seq_at(db: &mut PgConnection, book: i32, moment: OffsetDateTime) -> Result<i64> {
    Ok(sql::seq_at(db, book, moment).await?.unwrap_or(0))
}

/// The last seq that was in the book before that moment.
pub async fn seq_before(db: &mut PgConnection, book: i32, moment: OffsetDateTime) -> Result<i64> {
    Ok(sql::seq_before(db, book, moment).await?.unwrap_or(0))
}

/// The head of the book: its last seq, and when that was sealed.
pub async fn head(db: &mut PgConnection, book: i32) -> Result<(i64, OffsetDateTime)> {
    Ok(sql::head(db, book).await?)
}

/// The balances of these accounts after `until`, in their order; zero for one that nothing has touched.
pub async fn balances(
    db: &mut PgConnection,
    book: i32,
    accounts: &[AccountId],
    until: i64,
) -> Result<Vec<Minor>> {
    let ids: Vec<i64> = accounts.iter().map(|account| account.0).collect();
    let balances = sql::balances(db, book, &ids, until).await?;
    Ok(balances.into_iter().map(Minor).collect())
}

/// Whether money may enter and leave an account. One that nothing was done to is open.
pub async fn state(db: &mut PgConnection, book: i32, account: AccountId) -> Result<AccountState> {
    let kind = sql::last_state_change(db, book, account.0).await?;
    Ok(kind
        .and_then(TransferKind::from_code)
        .and_then(TransferKind::state_after)
        .unwrap_or(AccountState::Open))
}

/// The transfers of a customer's account, those of what it holds included.
pub async fn history(
    db: &mut PgConnection,
    book: i32,
    account: AccountId,
    span: Span,
) -> Result<Vec<HistoryEntry>> {
    let hold = account.hold().unwrap_or(account);
    let has_hold = sql::has_account(db, book, hold.0).await?;
    let span = Span { limit: span.limit.clamp(1, PAGE_MAX), ..span };
    let accounts = sql::Accounts { account: account.0, hold: hold.0, has_hold };
    if span.oldest_first {
        Ok(sql::history_upwards(db, book, accounts, span).await?)
    } else {
        Ok(sql::history_downwards(db, book, accounts, span).await?)
    }
}
