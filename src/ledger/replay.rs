//! Completes the reply to a request that repeats an idempotency key: adds the balances that the stored rows of the
//! earlier posting do not contain.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::account::AccountId;
use super::book::{book_of, book_of_account};
use super::money::Minor;
use super::transfer::Posted;
use super::{read, sql};
use crate::error::Result;

/// Completes a posting that was read from the database. Adds the held balances of the accounts that the posting
/// touched. If an account does not belong to the posting's book, reads its balance from the account's book, because the
/// posting's book does not contain the balance.
pub(super) async fn complete(db: &mut PgConnection, posted: &mut Posted) -> Result<()> {
    let home = book_of(posted.first_seq);
    let is_foreign = |id: AccountId| book_of_account(id).is_some_and(|book| book != home);
    let is_cross_book =
        posted.rows.iter().any(|row| is_foreign(row.debit) || is_foreign(row.credit));
    // The last transfer of the posting in each of its books.
    let mut ends = HashMap::from([(home, posted.last_seq)]);
    if is_cross_book {
        for copy in sql::copies(db, posted.first_seq, posted.last_seq).await? {
            let index = usize::try_from(copy.home - posted.first_seq).unwrap_or(usize::MAX);
            let Some(row) = posted.rows.get_mut(index) else { continue };
            // Checked after the read, because an operator may have begun to archive the transfer during the read.
            read::require_in_book(db, copy.seq).await?;
            if let Some(balance) = copy.debit_balance
                && book_of_account(row.debit) == Some(copy.book)
            {
                row.debit_balance = Minor(balance);
            }
            if let Some(balance) = copy.credit_balance
                && book_of_account(row.credit) == Some(copy.book)
            {
                row.credit_balance = Minor(balance);
            }
            let end = ends.entry(copy.book).or_insert(copy.seq);
            *end = copy.seq.max(*end);
        }
    }
    let touched = posted.rows.iter().flat_map(|row| [row.debit, row.credit]);
    let owners = touched.filter_map(|id| id.held_for().or(id.hold().and(Some(id))));
    let owners: Vec<AccountId> = owners.collect();
    for (book, end) in ends {
        let owners: Vec<AccountId> =
            owners.iter().copied().filter(|id| book_of_account(*id) == Some(book)).collect();
        let holds: Vec<AccountId> = owners.iter().filter_map(|id| id.hold()).collect();
        let held = read::balances(db, &holds, end).await?;
        posted.held.extend(owners.into_iter().zip(held).filter(|(_, held)| held.0 > 0));
    }
    Ok(())
}
