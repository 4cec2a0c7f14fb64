//! Books: independently ordered parts of the ledger, each with a writer of its own. The ids of transfers and of most
//! accounts encode the book.
//!
//! | what | book |
//! |---|---|
//! | customer accounts and their hold accounts | encoded in the id of the customer account: the ids of book `b` begin above `(b - 1) * 2^44` |
//! | transfers | encoded in the seq (sequence number), in the same way |
//! | reserves and payables | always the first book, so that a single writer can check their balances |
//! | other system accounts | each book has its own; a posting to several books uses those of its home book |
//!
//! A posting (a set of transfers that are written atomically) that touches accounts of several books has one of these
//! books as its home. The home stores every leg (row of a transfer) and numbers the transfers; each other book stores
//! copies of the legs that touch its accounts. For an account of another book, a book tracks only the net amount that
//! its own transfers have moved to that account.

use super::account::{AccountClass, AccountId};
use super::transfer::{Action, Leg, Posting};

/// The book that every installation has.
pub const FIRST_BOOK: i32 = 1;

/// Maximum number of books. JSON numbers can represent the ids of up to 256 books exactly. The limit is lower, because
/// a position in the ledger has an entry for every book and should stay short.
pub const BOOKS_MAX: i32 = 16;

/// Number of low bits in an id that contain the number of the account or transfer; the higher bits encode the book.
const SEQ_BITS: u32 = 44;

/// Seq of a book's initial seal, which precedes the first batch of the book. All ids of the book are higher.
pub fn first_seal(book: i32) -> i64 {
    i64::from(book - 1) << SEQ_BITS
}

/// Returns the id of the account with this number, in an installation with `books` books.
pub(super) fn id_of(number: i64, books: i32) -> i64 {
    let book = i32::try_from((number - 1) % i64::from(books)).unwrap_or_default() + FIRST_BOOK;
    first_seal(book) + number
}

/// Returns the book that contains the transfer with this seq.
pub fn book_of(seq: i64) -> i32 {
    i32::try_from(seq >> SEQ_BITS).map_or(FIRST_BOOK, |index| index + 1)
}

/// Index of a book in a list of all books.
pub fn index_of(book: i32) -> usize {
    usize::try_from(book - FIRST_BOOK).unwrap_or(usize::MAX)
}

/// The book of an account; `None` if each book has its own account with this id.
pub fn book_of_account(account: AccountId) -> Option<i32> {
    match account.class()? {
        AccountClass::Customer => Some(book_of(account.0)),
        AccountClass::Hold => account.held_for().map(|owner| book_of(owner.0)),
        AccountClass::Reserve | AccountClass::Payable => Some(FIRST_BOOK),
        AccountClass::System => None,
    }
}

/// The books that a posting is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placement {
    One(i32),
    Several {
        home: i32,
        /// All books of the posting in ascending order, including `home`, the book that stores every leg.
        books: Vec<i32>,
    },
}

impl Placement {
    /// Returns the books that a posting is written to, in an installation with `books` books.
    pub(super) fn new(posting: &Posting, books: i32) -> Self {
        if books == 1 {
            return Self::One(FIRST_BOOK);
        }
        let mut all: Vec<i32> = touched_books(posting).collect();
        let home = posting.legs.iter().find_map(leg_book).unwrap_or(FIRST_BOOK);
        all.push(home);
        all.sort_unstable();
        all.dedup();
        if let [book] = all[..] { Self::One(book) } else { Self::Several { home, books: all } }
    }
}

/// Returns whether a posting touches a book that this process does not know, because another process created the book
/// after this process started. `books` is the number of known books.
pub(super) fn touches_unknown_book(posting: &Posting, books: i32) -> bool {
    touched_books(posting).any(|book| !(FIRST_BOOK..=books).contains(&book))
}

/// The books that a posting touches: those of its accounts, and those of the transfers that it reverses or completes.
fn touched_books(posting: &Posting) -> impl Iterator<Item = i32> {
    let books = |leg: &Leg| [leg_book(leg), other_book(leg), leg.linked.map(book_of)];
    posting.legs.iter().flat_map(books).flatten()
}

/// Returns the book of the account that a leg debits, or whose state the leg changes. If every book has an account with
/// the debited id, returns the book of the credited account; `None` if every book has that account, too.
fn leg_book(leg: &Leg) -> Option<i32> {
    match leg.action {
        Action::Move { debit, credit, .. } => {
            book_of_account(debit).or_else(|| book_of_account(credit))
        }
        Action::Open { account, .. }
        | Action::Close { account }
        | Action::Freeze { account }
        | Action::Unfreeze { account } => book_of_account(account),
    }
}

/// The book of the account that a leg credits; `None` if every book has this account, or if the leg moves no money.
fn other_book(leg: &Leg) -> Option<i32> {
    match leg.action {
        Action::Move { credit, .. } => book_of_account(credit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::account::SystemRole;
    use crate::ledger::currency::Currency;
    use crate::ledger::money::Minor;
    use crate::ledger::transfer::TransferKind;

    fn pay(debit: AccountId, credit: AccountId) -> Leg {
        Action::Move { kind: TransferKind::Transfer, debit, credit, amount: Minor(1) }.into()
    }

    fn placement(legs: &[Leg], books: i32) -> Placement {
        Placement::new(&Posting { legs: legs.to_vec(), ..Posting::default() }, books)
    }

    #[test]
    fn an_id_says_its_book() {
        let account = AccountId(first_seal(3) + 7);

        assert_eq!(book_of_account(account), Some(3));
        assert_eq!(book_of_account(account.hold().unwrap()), Some(3));
        assert_eq!(book_of_account(AccountId(7)), Some(1));
        assert_eq!(book_of(first_seal(BOOKS_MAX) + 1), BOOKS_MAX);
        assert_eq!(book_of(first_seal(2) - 1), 1);
        assert_eq!([1, 2, 3, 4].map(|number| book_of(id_of(number, 3))), [1, 2, 3, 1]);
        assert_eq!(id_of(4, 1), 4);
    }

    #[test]
    fn a_posting_is_placed_by_its_accounts_and_by_the_transfer_that_it_reverses() {
        let euro = Currency::new("EUR", 2).unwrap();
        let world = AccountId::system(SystemRole::World, euro);
        let prize = AccountId::system(SystemRole::Prize, euro);
        let [one, other] = [AccountId(7), AccountId(first_seal(2) + 7)];
        let cross_book = |home| Placement::Several { home, books: vec![1, 2] };

        assert_eq!(placement(&[pay(world, other)], 2), Placement::One(2));
        assert_eq!(placement(&[pay(one, world)], 2), Placement::One(1));
        assert_eq!(placement(&[pay(world, world)], 2), Placement::One(1));
        assert_eq!(placement(&[pay(other, one)], 2), cross_book(2));
        assert_eq!(placement(&[pay(prize, other)], 2), cross_book(1));
        assert_eq!(placement(&[pay(other, one)], 1), Placement::One(1));
        let refund = Leg { linked: Some(9), ..pay(other, world) };
        assert_eq!(placement(&[refund], 2), cross_book(2));
        let unknown = |books| {
            let legs = vec![pay(world, AccountId(first_seal(3) + 1))];
            touches_unknown_book(&Posting { legs, ..Posting::default() }, books)
        };
        assert_eq!([1, 2, 3].map(unknown), [true, true, false]);
    }
}
