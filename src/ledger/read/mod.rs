//! Reads of the ledger: current and past balances, and histories. Each read takes a few index probes, however large
//! the ledger is.

mod sql;

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::account::{AccountId, AccountState};
use super::book::{FIRST_BOOK, book_of, book_of_account, first_seal};
use super::money::Minor;
use super::transfer::{TransferKind, TransferRow};
use crate::error::{Error, Result};

/// Maximum number of entries in a page of a history.
pub const PAGE_MAX: i64 = 1000;

/// A seq that is higher than the seq of every transfer, in all books.
pub const END: i64 = i64::MAX;

/// A transfer from the perspective of a customer account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    pub seq: i64,
    /// Id of the transfer: the seq of its first leg.
    pub transfer: i64,
    pub at: OffsetDateTime,
    pub kind: TransferKind,
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Minor,
    /// Available balance after the transfer.
    pub available: Minor,
    /// Held balance after the transfer.
    pub held: Minor,
    pub trace_id: Option<Uuid>,
    pub linked: Option<i64>,
    pub metadata: Option<String>,
}

/// A page of a history, and the seq before which the history is archived.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    pub entries: Vec<HistoryEntry>,
    /// First seq after the archived part of the book, if entries of the requested range may be archived. The page then
    /// lacks the entries before this seq.
    pub archived_before: Option<i64>,
}

/// End of the archived part of a book.
#[derive(Debug, Clone, Copy)]
pub struct ArchivedUntil {
    pub seq: i64,
    /// Time of the last archived transfer.
    pub at: OffsetDateTime,
}

impl From<ArchivedUntil> for Error {
    fn from(until: ArchivedUntil) -> Self {
        Self::Archived { until: until.at }
    }
}

/// The part of a history that a page shows: its bounds, its order and its limit.
#[derive(Debug, Clone, Copy)]
pub struct HistoryRange {
    /// Lowest seq, inclusive.
    pub from: i64,
    /// Highest seq, exclusive.
    pub before: i64,
    pub oldest_first: bool,
    pub limit: i64,
}

/// A stored row of the transfers table: one leg of a transfer.
#[derive(Debug, Clone)]
pub struct BookRow {
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
    /// Seq of the original, if this row is a copy of a leg that was posted in another book.
    pub home: Option<i64>,
}

impl BookRow {
    /// Converts to the type that the writer uses; `None` if this version of the program does not know the kind of the
    /// transfer, because a newer version wrote the row.
    pub fn transfer_row(&self) -> Option<TransferRow> {
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

    /// Id of the transfer: the seq of its first leg in the posting's home, the book that stores every leg of the
    /// posting.
    pub fn transfer_id(&self) -> i64 {
        self.home.unwrap_or(self.seq) - i64::from(self.leg)
    }

    /// Returns the accounts of this row's book that the transfer touches, each once. If the transfer also touches an
    /// account of another book, that book has a copy of the row, with the balance of that account.
    pub fn own_accounts(&self) -> impl Iterator<Item = AccountId> + use<> {
        let book = book_of(self.seq);
        let is_own = move |id: &AccountId| book_of_account(*id).is_none_or(|own| own == book);
        let credit = (self.credit != self.debit).then_some(AccountId(self.credit));
        [Some(AccountId(self.debit)), credit].into_iter().flatten().filter(is_own)
    }
}

/// Reads at most `limit` rows of a book, with seqs after `after`, up to and including `last`.
pub async fn rows(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<BookRow>> {
    sql::rows(db, book, after, last, limit).await
}

/// Reads the row with this seq, and at most `more` rows that follow it in the same book. Returns no rows if the row
/// with this seq is the copy of a transfer from another book.
pub async fn rows_from(db: &mut PgConnection, seq: i64, more: i64) -> sqlx::Result<Vec<BookRow>> {
    let last = seq.saturating_add(more);
    let rows = sql::rows(db, book_of(seq), seq.saturating_sub(1), last, i64::MAX).await?;
    Ok(if rows.first().is_some_and(|row| row.home.is_none()) { rows } else { Vec::new() })
}

/// Reads at most `limit` rows of a book that touch one of these accounts, with seqs after `after`, up to and including
/// `last`.
pub async fn rows_of_accounts(
    db: &mut PgConnection,
    book: i32,
    accounts: &[AccountId],
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<BookRow>> {
    let accounts: Vec<i64> = accounts.iter().map(|account| account.0).collect();
    sql::rows_of_accounts(db, book, &accounts, after, last, limit).await
}

/// Returns the book of an account; for a system account, which every book has, the first book.
fn book_for(account: AccountId) -> i32 {
    book_of_account(account).unwrap_or(FIRST_BOOK)
}

/// Returns the seq of the last transfer that was written to the book of an account at or before `moment`. If there is
/// none, returns the seq that precedes the book's first transfer.
pub async fn seq_at(
    db: &mut PgConnection,
    account: AccountId,
    moment: OffsetDateTime,
) -> Result<i64> {
    let book = book_for(account);
    Ok(sql::seq_at(db, book, moment).await?.unwrap_or(first_seal(book)))
}

/// Returns the seq of the last transfer that was written to the book of an account before `moment`. If there is none,
/// returns the seq that precedes the book's first transfer.
pub async fn seq_before(
    db: &mut PgConnection,
    account: AccountId,
    moment: OffsetDateTime,
) -> Result<i64> {
    let book = book_for(account);
    Ok(sql::seq_before(db, book, moment).await?.unwrap_or(first_seal(book)))
}

/// Returns the latest time up to which the book of an account is final: no transfer with a timestamp at or before this
/// time can still be added to the book.
///
/// While a batch is being written, this time is just before the timestamp of the last committed batch, because the
/// unfinished batch may get the same timestamp, but not an earlier one. Otherwise it is the current time, because every
/// later batch gets a later timestamp.
pub async fn settled_until(db: &mut PgConnection, account: AccountId) -> Result<OffsetDateTime> {
    let book = book_for(account);
    let sql::Settled { now, is_writing } = sql::settled(db, book).await?;
    if !is_writing {
        return Ok(now);
    }
    let (_, sealed_at) = sql::head(db, book).await?;
    Ok((sealed_at - Duration::MICROSECOND).min(now))
}

/// Returns the last seq of the book of an account.
pub async fn head_for(db: &mut PgConnection, account: AccountId) -> Result<i64> {
    head(db, book_for(account)).await
}

/// Returns the last seq of a book.
pub(super) async fn head(db: &mut PgConnection, book: i32) -> Result<i64> {
    Ok(sql::head(db, book).await?.0)
}

/// Returns the balances of these accounts, in the same order, after the transfer with the seq `until`; zero for unused
/// accounts. Returns an error if `until` is before the end of the archived part of a book, and one of the accounts was
/// created in that part.
pub async fn balances(
    db: &mut PgConnection,
    accounts: &[AccountId],
    until: i64,
) -> Result<Vec<Minor>> {
    let mut balances = vec![Minor::ZERO; accounts.len()];
    for (book, places) in by_book(accounts.iter().copied()) {
        let ids: Vec<i64> = places.iter().map(|place| accounts[*place].0).collect();
        let found = sql::balances(db, book, &ids, until).await?;
        if until < END {
            require_since(db, book, &ids, until.saturating_add(1)).await?;
        }
        for (place, balance) in places.into_iter().zip(found) {
            balances[place] = Minor(balance);
        }
    }
    Ok(balances)
}

/// Groups the indexes of accounts by the books of the accounts.
fn by_book(accounts: impl Iterator<Item = AccountId>) -> BTreeMap<i32, Vec<usize>> {
    let mut places = BTreeMap::<i32, Vec<usize>>::new();
    for (place, account) in accounts.enumerate() {
        places.entry(book_for(account)).or_default().push(place);
    }
    places
}

/// Returns the end of the archived part of the book; `None` if no part is archived.
pub async fn archived_until(db: &mut PgConnection, book: i32) -> Result<Option<ArchivedUntil>> {
    Ok(sql::archived_until(db, book).await?)
}

/// Returns the last archived seq of the book; `None` if no part is archived.
pub(super) async fn archived_seq(db: &mut PgConnection, book: i32) -> sqlx::Result<Option<i64>> {
    Ok(sql::archived_until(db, book).await?.map(|until| until.seq))
}

/// Returns an error if an archived transfer with the seq `from` or later may touch one of these accounts. Must be
/// called after the transfers were read, because archiving may begin at any time.
async fn require_since(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    from: i64,
) -> Result<()> {
    match sql::archived_until_for(db, book, accounts).await? {
        Some(archived) if from <= archived.seq => Err(archived.into()),
        _ => Ok(()),
    }
}

/// Returns an error if an archived transfer with the seq `from` or later may touch this account. Must be called after
/// the transfers were read.
pub async fn require_history(db: &mut PgConnection, account: AccountId, from: i64) -> Result<()> {
    require_since(db, book_for(account), &[account.0], from).await
}

/// Returns an error if the transfer with this seq is archived.
pub async fn require_in_book(db: &mut PgConnection, seq: i64) -> Result<()> {
    match archived_until(db, book_of(seq)).await? {
        Some(archived) if seq <= archived.seq => Err(archived.into()),
        _ => Ok(()),
    }
}

/// Returns the current balances of an account and of its hold account, and the position in the ledger at which the
/// balances were read.
pub async fn current_balances(
    db: &mut PgConnection,
    account: AccountId,
) -> Result<([Minor; 2], String)> {
    let ids = [account, account.hold().unwrap_or(account)].map(|account| account.0);
    let (balances, position) = sql::current_balances(db, book_for(account), ids).await?;
    Ok((balances.map(Minor), position))
}

/// Returns the balance of each account right after a transfer; zero for unused accounts. Each element of `after`
/// contains an account, and the seq of the transfer after which the account's balance is returned.
pub async fn balances_after(
    db: &mut PgConnection,
    after: &[(AccountId, i64)],
) -> Result<Vec<Minor>> {
    let mut balances = vec![Minor::ZERO; after.len()];
    for (book, places) in by_book(after.iter().map(|(account, _)| *account)) {
        let (accounts, seqs): (Vec<i64>, Vec<i64>) =
            places.iter().map(|place| (after[*place].0.0, after[*place].1)).unzip();
        let found = sql::balances_after(db, book, &accounts, &seqs).await?;
        for (place, balance) in places.into_iter().zip(found) {
            balances[place] = Minor(balance);
        }
    }
    Ok(balances)
}

/// Returns the state of an account. An account whose state has never changed is open.
pub async fn state(db: &mut PgConnection, account: AccountId) -> Result<AccountState> {
    let kind = sql::last_state_change(db, book_for(account), account.0).await?;
    Ok(kind
        .and_then(TransferKind::from_code)
        .and_then(TransferKind::state_after)
        .unwrap_or(AccountState::Open))
}

/// Reads the history of a customer account, including the transfers of its hold account. Returns an error if the whole
/// range is archived and the account was created in the archived part.
pub async fn history(
    db: &mut PgConnection,
    account: AccountId,
    range: HistoryRange,
) -> Result<HistoryPage> {
    let book = book_for(account);
    let hold = account.hold().unwrap_or(account);
    let has_hold = sql::has_account(db, book, hold.0).await?;
    let archived = sql::archived_until_for(db, book, &[account.0]).await?;
    let archived = archived.filter(|archived| range.from <= archived.seq);
    if let Some(archived) = archived.filter(|archived| range.before <= archived.seq + 1) {
        return Err(archived.into());
    }
    let archived_before = archived.map(|archived| archived.seq + 1);
    let from = archived_before.unwrap_or(range.from);
    let range = HistoryRange { from, limit: range.limit.clamp(1, PAGE_MAX), ..range };
    let accounts = sql::HistoryAccounts { account: account.0, hold: hold.0, has_hold };
    let entries = sql::history(db, book, accounts, range).await?;
    // Archiving may have begun while the entries were read.
    require_history(db, account, from).await?;
    Ok(HistoryPage { entries, archived_before })
}
