//! The check of legs that touch several books: the row in the book of the posting (the home of the leg) and the copies
//! in the other books must agree.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use super::sql::{self, StoredLeg};
use crate::ledger::account::AccountId;
use crate::ledger::book::{book_of, book_of_account};
use crate::ledger::read::{self, BookRow};

const MISSING: &str = "it has no copy in the book of one of its accounts";
const ORPHAN: &str = "it is a copy, and the row that it copies is missing";
const UNREGISTERED: &str = "it is a copy that is not registered in ledger.transfer_copy";
const DIFFERS: &str = "its copy in another book differs from it";

/// Returns the seqs of the faulty rows among `rows`, each with a description of the fault.
pub(super) async fn faults(
    db: &mut PgConnection,
    book: i32,
    rows: &[BookRow],
) -> sqlx::Result<Vec<(i64, &'static str)>> {
    let mut faults = Vec::new();
    let originals: Vec<&BookRow> = rows
        .iter()
        .filter(|row| row.home.is_none() && other_books(row, book).next().is_some())
        .collect();
    let copies: Vec<&BookRow> = rows.iter().filter(|row| row.home.is_some()).collect();
    if !originals.is_empty() {
        let seqs: Vec<i64> = originals.iter().map(|row| row.seq).collect();
        let found = by_place(sql::copies(db, &seqs).await?);
        let registered = registered(db, &seqs).await?;
        for row in originals {
            for other in other_books(row, book) {
                match (found.get(&(row.seq, other)), registered.get(&(row.seq, other))) {
                    (Some(copy), _) if !agrees(row, copy) => faults.push((row.seq, DIFFERS)),
                    (Some(_), _) => {}
                    (None, Some(seq)) if is_archived(db, *seq).await? => {}
                    (None, _) => faults.push((row.seq, MISSING)),
                }
            }
        }
    }
    if !copies.is_empty() {
        let homes: Vec<i64> = copies.iter().filter_map(|row| row.home).collect();
        let mut homes_of = BTreeMap::<i32, Vec<i64>>::new();
        for home in &homes {
            homes_of.entry(book_of(*home)).or_default().push(*home);
        }
        let mut originals = HashMap::new();
        for (book, homes) in homes_of {
            originals.extend(by_place(sql::originals(db, book, &homes).await?));
        }
        let registered = registered(db, &homes).await?;
        for row in copies {
            let home = row.home.unwrap_or_default();
            match originals.get(&(home, book_of(home))) {
                None if is_archived(db, home).await? => {}
                None => faults.push((row.seq, ORPHAN)),
                Some(original) if !agrees(row, original) || original.copy_of.is_some() => {
                    faults.push((row.seq, DIFFERS));
                }
                Some(_) if registered.get(&(home, book)) != Some(&row.seq) => {
                    faults.push((row.seq, UNREGISTERED));
                }
                Some(_) => {}
            }
        }
    }
    Ok(faults)
}

/// Returns the seqs of the copies that `ledger.transfer_copy` lists for these legs. Each key of the map consists of the
/// seq of the original leg and the book of the copy.
async fn registered(
    db: &mut PgConnection,
    homes: &[i64],
) -> sqlx::Result<HashMap<(i64, i32), i64>> {
    let copies = sql::registered_copies(db, homes).await?;
    Ok(copies.into_iter().map(|(home, book, seq)| ((home, book), seq)).collect())
}

fn by_place(legs: Vec<StoredLeg>) -> HashMap<(i64, i32), StoredLeg> {
    legs.into_iter().map(|leg| ((leg.home, leg.book), leg)).collect()
}

/// Returns the books of a row's accounts, except for the row's own book.
fn other_books(row: &BookRow, own: i32) -> impl Iterator<Item = i32> {
    let books = [row.debit, row.credit].map(|id| book_of_account(AccountId(id)));
    books.into_iter().flatten().filter(move |book| *book != own)
}

/// Whether a row agrees with the row of the same leg in another book. Balances are not compared.
fn agrees(row: &BookRow, leg: &StoredLeg) -> bool {
    let own_id = |id: i64| AccountId(id).own_id();
    own_id(row.debit) == own_id(leg.debit)
        && own_id(row.credit) == own_id(leg.credit)
        && (row.amount, row.kind, row.leg, row.legs) == (leg.amount, leg.kind, leg.leg, leg.legs)
        && (row.trace_id, row.linked) == (leg.trace_id, leg.linked)
        && row.metadata == leg.metadata
}

async fn is_archived(db: &mut PgConnection, seq: i64) -> sqlx::Result<bool> {
    let archived = read::archived_seq(db, book_of(seq)).await?;
    Ok(archived.is_some_and(|archived| seq <= archived))
}
