//! Catch-up: after another process has written to the book, the writer reads the transfers of that process to bring its
//! account cache up to date.

use std::mem;

use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::batch::BookHead;
use super::pipeline::Replies;
use super::queue::PostError;
use super::steps::{ErrorDetail, LOCKED_BATCHES};
use super::{Writer, WriterMode};
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::transfer::TransferKind;

impl Writer {
    pub(super) fn finish_catch_up(&mut self, after: i64, lock: bool, replies: Replies) {
        let rows: Result<Vec<_>, Error> = replies.into_iter().collect();
        let rows = match rows.map(|mut replies| replies.pop()) {
            Ok(rows) => rows.expect("there is a reply to each statement"),
            Err(error) => {
                tracing::warn!(
                    error.message = %ErrorDetail(&error),
                    "the ledger's writer could not read the transfers of other processes; the waiting clients get an error, and the writer will retry"
                );
                if lock {
                    self.pipeline.release_lock();
                }
                self.mode = WriterMode::Behind;
                for item in mem::take(&mut self.intake) {
                    self.finish(item, Err(PostError::Unavailable));
                }
                return;
            }
        };
        match self.apply_missed(after, &rows) {
            Ok(head) => {
                if head != self.head {
                    self.locked_batches_left = self.locked_batches_left.max(LOCKED_BATCHES);
                }
                (self.head, self.tail) = (head, head);
            }
            // The rows could not be parsed, so the cached accounts may be outdated.
            Err(error) => {
                tracing::error!(
                    error.message = %ErrorDetail(&error),
                    "the transfers of other processes could not be parsed; clearing the account cache of the ledger's writer"
                );
                self.cache.clear();
            }
        }
        self.mode = if lock { WriterMode::HoldsLock } else { WriterMode::Free };
    }

    /// Applies the transfers of other processes to the account cache, and returns the current head of the book.
    fn apply_missed(&mut self, after: i64, rows: &[Row]) -> Result<BookHead, Error> {
        let Some(first) = rows.first() else { return Ok(self.head) };
        let head = BookHead { seq: first.try_get(0)?, batch: first.try_get(1)? };
        let missed = head.seq - after;
        // The batch at our head differs, or is missing, if the database was restored, or if a standby without the last
        // commits took over. The book may have grown beyond our head since then.
        if first.try_get::<_, Option<Uuid>>(7)? != Some(self.head.batch) {
            tracing::error!(
                event = "ledger.lost",
                ours = self.head.seq,
                theirs = head.seq,
                "the database has lost acknowledged commits, because of a restore or a failover; clearing the caches of the ledger's writer"
            );
            self.cache.clear();
            self.keys.forget();
            return Ok(head);
        }
        if missed > self.settings.catch_up_max {
            self.cache.clear();
            return Ok(head);
        }
        if missed > 0 {
            self.update_cached_accounts(first)?;
        }
        Ok(head)
    }

    /// Updates the cached accounts that the missed transfers touched. `missed` is a single row, with an array for each
    /// column of the transfers.
    fn update_cached_accounts(&mut self, missed: &Row) -> Result<(), Error> {
        let kinds: Vec<i16> = missed.try_get(2)?;
        let (debits, credits): (Vec<i64>, Vec<i64>) = (missed.try_get(3)?, missed.try_get(4)?);
        let (debit_balances, credit_balances): (Vec<i64>, Vec<i64>) =
            (missed.try_get(5)?, missed.try_get(6)?);
        let debits = debits.into_iter().zip(debit_balances);
        let credits = credits.into_iter().zip(credit_balances);
        for (kind, (debit, credit)) in kinds.into_iter().zip(debits.zip(credits)) {
            let (debit, debit_balance) = (AccountId(debit.0), Minor(debit.1));
            let (credit, credit_balance) = (AccountId(credit.0), Minor(credit.1));
            let state = TransferKind::from_code(kind).and_then(TransferKind::state_after);
            self.cache.update_if_cached(debit, |account| {
                account.balance = debit_balance;
                account.state = state.unwrap_or(account.state);
            });
            self.cache.update_if_cached(credit, |account| account.balance = credit_balance);
            for (id, balance) in [(debit, debit_balance), (credit, credit_balance)] {
                if let Some(owner) = id.held_for() {
                    self.cache.update_if_cached(owner, |account| account.held = balance);
                }
            }
        }
        Ok(())
    }
}
