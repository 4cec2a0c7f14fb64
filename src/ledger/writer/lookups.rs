//! Results of the writer's queries: accounts, used keys, and the transfers of other processes.

use std::collections::HashMap;
use std::mem;

use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::batch::{BookHead, Lookup};
use super::idempotency::StoredKey;
use super::pipeline::{Replies, parse_head};
use super::queue::{PostError, PostReply, QueuedPosting};
use super::steps::{ErrorDetail, LOCKED_BATCHES, replay_reply};
use super::{Writer, WriterMode};
use crate::ledger::account::{Account, AccountId, AccountState};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::TransferKind;

impl Writer {
    pub(super) fn finish_lookup(&mut self, lookup: Lookup, replies: Replies) {
        let result = match LookupResult::from_replies(replies) {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(
                    error = %ErrorDetail(&error),
                    "the ledger's lookup of accounts and keys failed; its postings fail as unavailable"
                );
                for item in lookup.into_items() {
                    self.finish(item, Err(PostError::Unavailable));
                }
                return;
            }
        };
        for id in &lookup.accounts {
            self.cache.warm(*id, result.accounts.get(id).copied());
        }
        for (hash, key) in &result.keys {
            self.keys.remember(*hash, *key);
        }
        let is_confirmed = lookup.expected_head.is_none_or(|head| result.head == Some(head));
        let mut again = lookup.waiting;
        for (item, refusal) in lookup.refused {
            match self.cached_reply(&item) {
                Some(reply) => self.finish(item, reply),
                None if is_confirmed => self.finish(item, Err(refusal.into())),
                None => again.push(item),
            }
        }
        for item in lookup.suspects {
            match self.cached_reply(&item) {
                Some(reply) => self.finish(item, reply),
                None => again.push(item),
            }
        }
        self.put_back(again.into_iter());
        // A batch in flight detects the new head by itself. Without one, a further lookup would have the same result.
        if !is_confirmed && self.mode == WriterMode::Free && !self.pipeline.has_batch() {
            self.mode = WriterMode::Behind;
        }
    }

    /// The reply to this item, if its key is in the cache of answered keys.
    fn cached_reply(&self, item: &QueuedPosting) -> Option<PostReply> {
        let key = item.posting.key?;
        self.keys.find(key.hash).map(|stored| replay_reply(key.content, stored))
    }

    pub(super) fn finish_catch_up(&mut self, after: i64, lock: bool, mut replies: Replies) {
        let rows = match replies.pop().expect("there is a reply to each statement") {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(
                    error = %ErrorDetail(&error),
                    "catch-up with other writers failed; waiting postings fail as unavailable, and it is retried"
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
            // Rows of an unexpected shape: the cached accounts may be outdated.
            Err(error) => {
                tracing::error!(
                    error = %ErrorDetail(&error),
                    "catch-up returned malformed rows; the account cache is cleared"
                );
                self.cache.clear();
            }
        }
        self.mode = if lock { WriterMode::HoldsLock } else { WriterMode::Free };
    }

    /// Applies the transfers of other processes to the cache, and returns the current head.
    fn apply_missed(&mut self, after: i64, rows: &[Row]) -> Result<BookHead, Error> {
        let Some(first) = rows.first() else { return Ok(self.head) };
        let head = BookHead { seq: first.try_get(0)?, batch: first.try_get(1)? };
        let missed = head.seq - after;
        // The seal of our head changes if the database was restored, or if a standby without the last commits took
        // over. The book may since have grown beyond our head.
        if first.try_get::<_, Option<Uuid>>(7)? != Some(self.head.batch) {
            tracing::error!(
                event = "ledger.lost",
                ours = self.head.seq,
                theirs = head.seq,
                "the database has lost acknowledged commits, by a restore or by a failover; the caches are cleared"
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

    /// Updates the cached accounts that the missed transfers touched. The row has an array for each column.
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

/// Parsed replies to a lookup.
struct LookupResult {
    accounts: HashMap<AccountId, Account>,
    keys: Vec<(Uuid, StoredKey)>,
    head: Option<BookHead>,
}

impl LookupResult {
    fn from_replies(replies: Replies) -> Result<Self, Error> {
        let replies: Vec<Vec<Row>> = replies.into_iter().collect::<Result<_, _>>()?;
        let [accounts, keys, head] = replies.as_slice() else {
            unreachable!("a lookup has three statements")
        };
        Ok(Self {
            accounts: accounts.iter().map(parse_account).collect::<Result<_, _>>()?,
            keys: keys.iter().map(parse_key).collect::<Result<_, _>>()?,
            head: head.first().map(parse_head).transpose()?,
        })
    }
}

fn parse_key(row: &Row) -> Result<(Uuid, StoredKey), Error> {
    let stored = StoredKey {
        content: row.try_get(1)?,
        first_seq: row.try_get(2)?,
        last_seq: row.try_get(3)?,
    };
    Ok((row.try_get(0)?, stored))
}

/// Parses an account. Its balance is that of its last debit or its last credit, whichever is later.
fn parse_account(row: &Row) -> Result<(AccountId, Account), Error> {
    let code: String = row.try_get(1)?;
    let decimals: i16 = row.try_get(2)?;
    let debit: (Option<i64>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
    let credit: (Option<i64>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    let kind: Option<i16> = row.try_get(7)?;
    let held: i64 = row.try_get(8)?;
    let (_, balance) = debit.max(credit);
    let currency = Currency::new(&code, u8::try_from(decimals).unwrap_or_default())
        .expect("a constraint of the table has the same rule as the constructor");
    let state = kind
        .and_then(TransferKind::from_code)
        .and_then(TransferKind::state_after)
        .unwrap_or(AccountState::Open);
    Ok((
        AccountId(row.try_get(0)?),
        Account { currency, balance: Minor(balance.unwrap_or_default()), held: Minor(held), state },
    ))
}
