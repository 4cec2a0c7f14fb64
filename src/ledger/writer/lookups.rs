//! What the writer learns by asking: accounts, used keys, and what others wrote meanwhile.

use std::collections::HashMap;
use std::mem;

use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::batch::{Head, Lookup};
use super::idempotency::StoredKey;
use super::pipeline::{Replies, head_of};
use super::queue::{Answer, PostError, QueuedPosting};
use super::steps::{Detail, TURNS_LOCKED, replay};
use super::{Mode, Writer};
use crate::ledger::account::{Account, AccountId, AccountState};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::TransferKind;

impl Writer {
    pub(super) fn finish_ask(&mut self, ask: Lookup, replies: Replies) {
        let answers = match parse_answers(replies) {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(error = %Detail(&error), "the database does not answer a question");
                for item in ask.into_items() {
                    self.finish(item, Err(PostError::Unavailable));
                }
                return;
            }
        };
        for id in &ask.accounts {
            self.cache.warm(*id, answers.accounts.get(id).copied());
        }
        for (hash, known) in &answers.keys {
            self.keys.remember(*hash, *known);
        }
        let confirmed = ask.confirm.is_none_or(|head| answers.head == Some(head));
        let mut again = ask.waiting;
        for (item, refusal) in ask.refused {
            match self.known(&item) {
                Some(answer) => self.finish(item, answer),
                None if confirmed => self.finish(item, Err(refusal.into())),
                None => again.push(item),
            }
        }
        for item in ask.suspects {
            match self.known(&item) {
                Some(answer) => self.finish(item, answer),
                None => again.push(item),
            }
        }
        self.put_back(again.into_iter());
        // A batch in flight finds out by itself; other questions would only ask the same again.
        if !confirmed && self.mode == Mode::Free && !self.link.has_batch() {
            self.mode = Mode::Behind;
        }
    }

    /// The answer that the book has for this item's key.
    fn known(&self, item: &QueuedPosting) -> Option<Answer> {
        let key = item.posting.key?;
        self.keys.find(key.hash).map(|known| replay(key.content, known))
    }

    pub(super) fn finish_catch_up(&mut self, after: i64, lock: bool, mut replies: Replies) {
        let rows = match replies.pop().expect("there is a reply to each request") {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(error = %Detail(&error), "catching up failed");
                if lock {
                    self.link.release();
                }
                self.mode = Mode::Behind;
                for item in mem::take(&mut self.intake) {
                    self.finish(item, Err(PostError::Unavailable));
                }
                return;
            }
        };
        match self.patch(after, &rows) {
            Ok(head) => {
                if head != self.head {
                    self.turns_locked = self.turns_locked.max(TURNS_LOCKED);
                }
                (self.head, self.tail) = (head, head);
            }
            // Rows of an unexpected shape: trust nothing that is in memory.
            Err(error) => {
                tracing::error!(error = %Detail(&error), "what was missed makes no sense");
                self.cache.clear();
            }
        }
        self.mode = if lock { Mode::Holding } else { Mode::Free };
    }

    /// Brings the cache up to the head that these rows tell.
    fn patch(&mut self, after: i64, rows: &[Row]) -> Result<Head, Error> {
        let Some(first) = rows.first() else { return Ok(self.head) };
        let head = Head { seq: first.try_get(0)?, batch: first.try_get(1)? };
        let missed = head.seq - after;
        // A database that was restored, or a standby that lacked the last commits: it may have grown beyond us since.
        if first.try_get::<_, Option<Uuid>>(7)? != Some(self.head.batch) {
            tracing::error!(
                event = "ledger.lost",
                ours = self.head.seq,
                theirs = head.seq,
                "the book has lost what it had acknowledged: was the database restored, or did a standby take over?"
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
            self.patch_accounts(first)?;
        }
        Ok(head)
    }

    /// Takes over what others left on the accounts that are known here. One array for each column.
    fn patch_accounts(&mut self, missed: &Row) -> Result<(), Error> {
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
            self.cache.patch(debit, |account| {
                account.balance = debit_balance;
                account.state = state.unwrap_or(account.state);
            });
            self.cache.patch(credit, |account| account.balance = credit_balance);
            for (id, balance) in [(debit, debit_balance), (credit, credit_balance)] {
                if let Some(owner) = id.held_for() {
                    self.cache.patch(owner, |account| account.held = balance);
                }
            }
        }
        Ok(())
    }
}

struct Answers {
    accounts: HashMap<AccountId, Account>,
    keys: Vec<(Uuid, StoredKey)>,
    head: Option<Head>,
}

fn parse_answers(replies: Replies) -> Result<Answers, Error> {
    let replies: Vec<Vec<Row>> = replies.into_iter().collect::<Result<_, _>>()?;
    let [accounts, keys, head] = replies.as_slice() else {
        unreachable!("three questions, three answers")
    };
    Ok(Answers {
        accounts: accounts.iter().map(parse_account).collect::<Result<_, _>>()?,
        keys: keys.iter().map(parse_key).collect::<Result<_, _>>()?,
        head: head.first().map(head_of).transpose()?,
    })
}

fn parse_key(row: &Row) -> Result<(Uuid, StoredKey), Error> {
    let known = StoredKey {
        content: row.try_get(1)?,
        first_seq: row.try_get(2)?,
        last_seq: row.try_get(3)?,
    };
    Ok((row.try_get(0)?, known))
}

/// The balance is that of the later of the last debit and the last credit.
fn parse_account(row: &Row) -> Result<(AccountId, Account), Error> {
    let code: String = row.try_get(1)?;
    let decimals: i16 = row.try_get(2)?;
    let debit: (Option<i64>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
    let credit: (Option<i64>, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
    let kind: Option<i16> = row.try_get(7)?;
    let held: i64 = row.try_get(8)?;
    let (_, balance) = debit.max(credit);
    let currency = Currency::new(&code, u8::try_from(decimals).unwrap_or_default())
        .expect("a constraint of the table says the same as the constructor");
    let state = kind
        .and_then(TransferKind::from_code)
        .and_then(TransferKind::state_after)
        .unwrap_or(AccountState::Open);
    Ok((
        AccountId(row.try_get(0)?),
        Account { currency, balance: Minor(balance.unwrap_or_default()), held: Minor(held), state },
    ))
}
