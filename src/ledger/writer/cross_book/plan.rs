//! The rows of a transaction that writes to several books: each leg is written to the home book of its posting, and
//! copied to every other book that the leg touches.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::connection::LockedBooks;
use crate::idempotency_key::HashedKey;
use crate::ledger::account::{Account, AccountId};
use crate::ledger::book::{Placement, book_of, book_of_account};
use crate::ledger::currency::Currency;
use crate::ledger::decide::{self, Decision, Refusal, Rules};
use crate::ledger::encode::{BatchEncoder, TransferAttributes};
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Leg, Posted, Posting, TransferRow};
use crate::ledger::writer::batch::{BookHead, OpenedAccount};

/// A row of a book's batch: a [`TransferRow`], and the columns that a [`TransferRow`] does not contain.
#[derive(Debug)]
pub(in crate::ledger::writer) struct PartRow {
    pub(in crate::ledger::writer) row: TransferRow,
    pub(in crate::ledger::writer) trace_id: Option<Uuid>,
    pub(in crate::ledger::writer) linked: Option<i64>,
    pub(in crate::ledger::writer) metadata: Option<String>,
    pub(in crate::ledger::writer) home: Option<i64>,
}

/// The batch of one book in a transaction that writes to several books.
#[derive(Debug)]
pub(in crate::ledger::writer) struct BookPart {
    pub(in crate::ledger::writer) book: i32,
    pub(in crate::ledger::writer) prev: BookHead,
    /// Id of the batch. The batches of all books in a transaction have the same id.
    pub(in crate::ledger::writer) id: Uuid,
    pub(in crate::ledger::writer) rows: Vec<PartRow>,
    pub(in crate::ledger::writer) keys: Vec<(HashedKey, i64, i64)>,
    pub(in crate::ledger::writer) opened: Vec<OpenedAccount>,
    pub(in crate::ledger::writer) content: [u8; 32],
}

/// The batches of a transaction.
#[derive(Debug)]
pub(super) struct CrossBookPlan {
    /// The batch of each book, in the order of the books.
    pub(super) parts: Vec<BookPart>,
    /// The accounts of each book, with their balances and states after the postings that were added so far.
    accounts: HashMap<(i32, AccountId), Account>,
    /// The accounts that exist in each book.
    existing: HashSet<(i32, AccountId)>,
}

/// A posting that was added to a plan, with a row for each leg. The balances in a row come from the books to which its
/// accounts belong.
#[derive(Debug)]
pub(super) struct PlannedPosting {
    home: i32,
    first_seq: i64,
    rows: Vec<TransferRow>,
    held: Vec<(AccountId, Minor)>,
}

/// The ids of the accounts that a posting needs in each of its books.
pub(super) fn accounts_by_book(
    posting: &Posting,
    home: i32,
    books: &[i32],
) -> impl Iterator<Item = (i32, AccountId)> {
    let accounts: Vec<AccountId> = decide::accounts_of(&posting.legs).collect();
    books.iter().copied().flat_map(move |book| {
        accounts.clone().into_iter().map(move |account| (book, id_in(account, home, book)))
    })
}

/// Returns the book that an account belongs to. For a system account that exists in every book, returns the home book
/// of the posting.
fn own_book(account: AccountId, home: i32) -> i32 {
    book_of_account(account).unwrap_or(home)
}

/// Returns the id under which a book records an account, for a posting with the home book `home`. A book that the
/// account does not belong to records it under its [`AccountId::foreign_id`].
fn id_in(account: AccountId, home: i32, book: i32) -> AccountId {
    if own_book(account, home) == book { account } else { account.foreign_id() }
}

impl CrossBookPlan {
    pub(super) fn new(locked: LockedBooks) -> Self {
        let id = Uuid::new_v4();
        let mut heads: Vec<_> = locked.heads.into_iter().collect();
        heads.sort_unstable_by_key(|(book, _)| *book);
        let parts = heads.into_iter().map(|(book, prev)| BookPart {
            book,
            prev,
            id,
            rows: Vec::new(),
            keys: Vec::new(),
            opened: Vec::new(),
            content: [0; 32],
        });
        let existing = locked.accounts.keys().copied().collect();
        Self { parts: parts.collect(), accounts: locked.accounts, existing }
    }

    /// Accepts a posting and adds its rows, or refuses the posting.
    pub(super) fn add(
        &mut self,
        posting: &Posting,
        placement: &Placement,
        rules: &Rules,
        decision: &mut Decision,
    ) -> Result<PlannedPosting, Refusal> {
        let (home, books) = match placement {
            Placement::One(book) => (*book, std::slice::from_ref(book)),
            Placement::Several { home, books } => (*home, books.as_slice()),
        };
        let find = |id| self.accounts.get(&(own_book(id, home), id)).copied();
        decide::decide(&posting.legs, rules, find, decision)
            .map_err(|refusal| refusal.in_leg(decision.refused_leg, &posting.legs))?;
        for (id, account) in &decision.touched {
            self.accounts.insert((own_book(*id, home), *id), *account);
        }
        let currencies: HashMap<AccountId, Currency> =
            decision.touched.iter().map(|(id, account)| (*id, account.currency)).collect();
        let first_seq = self.part(home).next_seq();
        for book in std::iter::once(home).chain(books.iter().copied().filter(|book| *book != home))
        {
            for (n, (row, leg)) in decision.rows.iter().zip(&posting.legs).enumerate() {
                let seq_at_home = first_seq + i64::try_from(n).expect("a posting is small");
                let is_touched =
                    [row.debit, row.credit].iter().any(|id| own_book(*id, home) == book);
                if book == home || is_touched || leg.linked.is_some_and(|id| book_of(id) == book) {
                    let copy_of = (book != home).then_some(seq_at_home);
                    let row = self.row_in(book, home, row, &currencies);
                    self.part(book).push(row, posting, leg, copy_of);
                }
            }
        }
        if let Some(key) = posting.key {
            let last_seq = self.part(home).next_seq() - 1;
            self.part(home).keys.push((key, first_seq, last_seq));
        }
        let held = decision.touched.iter().filter(|(_, after)| after.held > Minor::ZERO);
        let held = held.map(|(id, after)| (*id, after.held)).collect();
        Ok(PlannedPosting { home, first_seq, rows: decision.rows.clone(), held })
    }

    /// Returns the row of a leg for a book, with the ids and balances that this book records. Opens the accounts that
    /// the book does not have.
    fn row_in(
        &mut self,
        book: i32,
        home: i32,
        row: &TransferRow,
        currencies: &HashMap<AccountId, Currency>,
    ) -> TransferRow {
        let mut sides = [
            (row.debit, Minor(-row.amount.0), row.debit_balance),
            (row.credit, row.amount, row.credit_balance),
        ];
        for (id, change, balance) in &mut sides {
            let is_own = own_book(*id, home) == book;
            let currency = currencies.get(id).copied().expect("each account of a row is touched");
            *id = id_in(*id, home, book);
            if !is_own {
                let before = self.accounts.get(&(book, *id)).copied();
                let mut account = before.unwrap_or(Account::empty(currency));
                // No limit applies to the sum of the amounts that a book has sent to an account of another book, so the
                // addition saturates.
                account.balance = Minor(account.balance.0.saturating_add(change.0));
                *balance = account.balance;
                self.accounts.insert((book, *id), account);
            }
            if self.existing.insert((book, *id)) {
                let part = self.part(book);
                let seq = part.next_seq();
                part.opened.push(OpenedAccount { seq, account: *id, currency });
            }
        }
        let [(debit, _, debit_balance), (credit, _, credit_balance)] = sides;
        TransferRow { debit, credit, debit_balance, credit_balance, ..*row }
    }

    fn part(&mut self, book: i32) -> &mut BookPart {
        let found = self.parts.iter_mut().find(|part| part.book == book);
        found.expect("every book of a posting was locked")
    }
}

impl PlannedPosting {
    pub(super) fn first_seq(&self) -> i64 {
        self.first_seq
    }

    /// The acknowledgment of the posting. `sealed_at` contains the time of each batch of the plan.
    pub(super) fn posted(self, plan: &CrossBookPlan, sealed_at: &[OffsetDateTime]) -> Posted {
        let mut sealed = plan.parts.iter().zip(sealed_at);
        let (_, at) = sealed.find(|(part, _)| part.book == self.home).expect("a part is the home");
        let last_seq = self.first_seq + i64::try_from(self.rows.len()).unwrap_or_default() - 1;
        let Self { first_seq, rows, held, .. } = self;
        Posted { first_seq, last_seq, at: *at, replayed: false, rows, held }
    }
}

impl BookPart {
    pub(super) fn last_seq(&self) -> i64 {
        self.next_seq() - 1
    }

    fn next_seq(&self) -> i64 {
        self.prev.seq + 1 + i64::try_from(self.rows.len()).expect("a batch is small")
    }

    fn push(&mut self, row: TransferRow, posting: &Posting, leg: &Leg, home: Option<i64>) {
        let metadata = leg.metadata.as_ref().map(|metadata| metadata.get().to_owned());
        let (trace_id, linked) = (posting.trace_id, leg.linked);
        self.rows.push(PartRow { row, trace_id, linked, metadata, home });
    }

    /// Completes the batch: computes the digest of its content.
    pub(super) fn seal(&mut self) {
        self.opened.sort_unstable_by_key(|opened| (opened.seq, opened.account));
        let mut encoder = BatchEncoder::new(self.book, self.prev.seq);
        for PartRow { row, trace_id, linked, metadata, home } in &self.rows {
            let (trace_id, linked, home) = (*trace_id, *linked, *home);
            let metadata = metadata.as_deref();
            encoder.add_transfer(row, TransferAttributes { trace_id, linked, metadata, home });
        }
        for (key, first, last) in &self.keys {
            encoder.add_posting(*key, *first, *last);
        }
        for OpenedAccount { seq, account, currency } in &self.opened {
            encoder.add_account(*account, *seq, currency.decimals(), currency.code());
        }
        self.content = encoder.finish();
    }
}
