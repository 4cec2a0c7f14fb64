//! Statements of publishers: the changes to the balance of a publisher between two points in time, read from the
//! ledger.

use time::OffsetDateTime;

use super::{no_publisher, sql};
use crate::auth::Caller;
use crate::error::Result;
use crate::games::purchase::seller_account;
use crate::games::{Games, require_manager};
use crate::ids::PublisherId;
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read;
use crate::ledger::transfer::TransferKind;

/// Number of entries that are read from the ledger at a time.
const PAGE: i64 = 1_000;

/// Sums of a statement, in minor units. The sums of tax and fees exclude refunded amounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatementSums {
    pub sales: i64,
    pub refunds: i64,
    pub tax: i64,
    pub fees: i64,
    pub payouts: i64,
}

/// Kind of an entry of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(as = PublisherEntryKind, rename_all = "snake_case")]
pub enum EntryKind {
    Sale,
    Refund,
    Tax,
    Fee,
    Payout,
}

impl EntryKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Refund => "refund",
            Self::Tax => "tax",
            Self::Fee => "fee",
            Self::Payout => "payout",
        }
    }
}

/// An entry of a publisher's statement: a change to the balance of the publisher.
#[derive(Debug, Clone)]
pub struct StatementEntry {
    pub at: OffsetDateTime,
    pub transfer: i64,
    pub kind: EntryKind,
    /// Amount of the entry; negative if the entry lowers the balance.
    pub amount: Minor,
    /// Balance of the publisher after the entry.
    pub balance: Minor,
    /// The game that the entry is about, if any.
    pub game: Option<i64>,
}

/// A statement of a publisher. Its entries are read a page at a time, oldest first, so that a long statement does not
/// fill the memory.
pub struct PublisherStatement {
    pub publisher: PublisherId,
    pub currency: Currency,
    pub opening: Minor,
    pub closing: Minor,
    pub sums: StatementSums,
    /// End of the statement, if the caller specified an end. It is earlier than the requested end if transfers from
    /// before that time may still be uncommitted.
    pub until: Option<OffsetDateTime>,
    accounts: Accounts,
    /// Range of ledger sequence numbers that are still to be read: the first number, and the number after the last.
    range: (i64, i64),
    games: Games,
    is_complete: bool,
}

/// The account of the publisher, and the account that receives the tax.
#[derive(Debug, Clone, Copy)]
struct Accounts {
    own: AccountId,
    tax: AccountId,
}

impl Games {
    /// Returns the statement of a publisher in a currency, between two points in time.
    pub async fn publisher_statement(
        &self,
        publisher: PublisherId,
        currency: Option<Currency>,
        (from, to): (Option<OffsetDateTime>, Option<OffsetDateTime>),
        caller: &Caller,
    ) -> Result<PublisherStatement> {
        let currency = currency.unwrap_or(self.default_currency());
        let mut db = self.db.acquire("games.publisher").await?;
        let found = sql::find(&mut db, publisher).await?;
        require_manager(caller, found.as_ref().map(|row| row.user))?;
        found.ok_or_else(no_publisher)?;
        let own = seller_account(Some(publisher), currency)?;
        // This time is read before the snapshot is taken. Otherwise, the snapshot could lack entries from before this
        // time.
        let settled = match from.or(to) {
            Some(_) => Some(read::settled_until(&mut db, own).await?),
            None => None,
        };
        let [from, until] = [from, to].map(|moment| Some(moment?.min(settled?)));
        drop(db);
        let accounts = Accounts { own, tax: AccountId::system(SystemRole::Tax, currency) };
        let mut db = self.db.fresh_snapshot("games.statement").await?;
        let first = match from {
            Some(from) => read::seq_before(&mut db, own, from).await? + 1,
            None => 1,
        };
        let end = match until {
            Some(until) => read::seq_before(&mut db, own, until).await? + 1,
            None => read::head_for(&mut db, own).await? + 1,
        };
        let range = (first, end.max(first));
        let before = read::balances(&mut db, &[own], range.0 - 1).await?;
        let after = read::balances(&mut db, &[own], range.1 - 1).await?;
        let rows = sql::sums(&mut db, own, range).await?;
        drop(db);
        let mut sums = StatementSums::default();
        for row in rows {
            let amount = if row.is_debit { row.amount } else { -row.amount };
            match accounts.meaning(row.kind, row.is_debit, row.other) {
                EntryKind::Sale => sums.sales -= amount,
                EntryKind::Refund => sums.refunds += amount,
                EntryKind::Tax => sums.tax += amount,
                EntryKind::Fee => sums.fees += amount,
                EntryKind::Payout => sums.payouts += amount,
            }
        }
        let balance = |balances: Vec<Minor>| balances.first().copied().unwrap_or_default();
        Ok(PublisherStatement {
            publisher,
            currency,
            opening: balance(before),
            closing: balance(after),
            sums,
            until,
            accounts,
            range,
            games: self.clone(),
            is_complete: false,
        })
    }
}

impl Accounts {
    /// Returns the kind of the statement entry for a transfer that debits or credits the publisher. A transfer that
    /// belongs to a refund and credits the publisher returns tax or a fee; the debited account `other` tells which.
    fn meaning(&self, kind: i16, is_debit: bool, other: i64) -> EntryKind {
        // Tax of a sale to a wallet of another book goes to the tax account of that book.
        let other = AccountId(other).own_id();
        match (TransferKind::from_code(kind), is_debit) {
            (Some(TransferKind::Purchase), _) => EntryKind::Sale,
            (Some(TransferKind::Tax), _) => EntryKind::Tax,
            (Some(TransferKind::Refund), true) => EntryKind::Refund,
            (Some(TransferKind::Refund), false) if other == self.tax => EntryKind::Tax,
            (Some(TransferKind::Fee), _) | (Some(TransferKind::Refund), false) => EntryKind::Fee,
            _ => EntryKind::Payout,
        }
    }
}

impl PublisherStatement {
    /// Returns the next entries of the statement; `None` when the statement is complete.
    pub async fn next_page(&mut self) -> Result<Option<Vec<StatementEntry>>> {
        if self.is_complete {
            return Ok(None);
        }
        let mut db = self.games.db.acquire("games.statement_page").await?;
        let rows = sql::entries(&mut db, self.accounts.own, self.range, PAGE).await?;
        read::require_history(&mut db, self.accounts.own, self.range.0).await?;
        drop(db);
        match rows.last() {
            Some(last) if i64::try_from(rows.len()) == Ok(PAGE) => self.range.0 = last.seq + 1,
            _ => self.is_complete = true,
        }
        let entries = rows.into_iter().map(|row| StatementEntry {
            at: row.at,
            transfer: row.transfer,
            kind: self.accounts.meaning(row.kind, row.is_debit, row.other),
            amount: Minor(if row.is_debit { -row.amount } else { row.amount }),
            balance: Minor(row.balance),
            game: row.game,
        });
        Ok(Some(entries.collect()))
    }
}
