//! Handles the results of the queries with which the writer reads accounts and used idempotency keys.

use std::collections::HashMap;

use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::batch::{BookHead, Lookup};
use super::idempotency::{StoredKey, replay_reply};
use super::pipeline::{Replies, parse_head};
use super::queue::{PostError, PostReply, QueuedPosting};
use super::steps::ErrorDetail;
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
                    error.message = %ErrorDetail(&error),
                    "the ledger's writer could not read accounts and idempotency keys; the waiting clients get an error and may retry"
                );
                if self.mode == WriterMode::HoldsLock {
                    // The error has aborted the transaction that holds the lock.
                    self.pipeline.release_lock();
                    self.mode = WriterMode::Behind;
                }
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
        // If a batch is in flight, its failure will reveal the new head of the book. Otherwise the writer must read the
        // new head, because another lookup would have the same result.
        if !is_confirmed && self.mode == WriterMode::Free && !self.pipeline.has_batch() {
            self.mode = WriterMode::Behind;
        }
    }

    /// The reply to a posting whose idempotency key was used recently; `None` if the key is not in the cache.
    fn cached_reply(&self, item: &QueuedPosting) -> Option<PostReply> {
        let key = item.posting.key?;
        self.keys.find(key.hash).map(|stored| replay_reply(key, stored))
    }
}

/// Parsed result of a lookup: accounts, used idempotency keys, and the head (newest batch) of the book.
struct LookupResult {
    accounts: HashMap<AccountId, Account>,
    keys: Vec<(Uuid, StoredKey)>,
    head: Option<BookHead>,
}

impl LookupResult {
    fn from_replies(replies: Replies) -> Result<Self, Error> {
        let replies: Vec<Vec<Row>> = replies.into_iter().collect::<Result<_, _>>()?;
        let [.., accounts, keys, head] = replies.as_slice() else {
            unreachable!("a lookup has at least three statements")
        };
        Ok(Self {
            accounts: accounts.iter().map(parse_account).collect::<Result<_, _>>()?,
            keys: keys.iter().map(parse_key).collect::<Result<_, _>>()?,
            head: head.first().map(parse_head).transpose()?,
        })
    }
}

pub(super) fn parse_key(row: &Row) -> Result<(Uuid, StoredKey), Error> {
    let stored = StoredKey {
        content: row.try_get(1)?,
        first_seq: row.try_get(2)?,
        last_seq: row.try_get(3)?,
    };
    Ok((row.try_get(0)?, stored))
}

/// Parses an account. Its balance is the balance that its last debit or its last credit stored, whichever is later.
pub(super) fn parse_account(row: &Row) -> Result<(AccountId, Account), Error> {
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
