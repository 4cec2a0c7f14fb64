//! A batch: postings that are decided, but not yet in the book.

use std::collections::VecDeque;

use time::OffsetDateTime;
use tracing::Span;
use uuid::Uuid;

use super::cache::{Cache, Undo};
use super::queue::QueuedPosting;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::decide::{self, Decision, Refusal, Rules};
use crate::ledger::encode::{Attached, Encoder};
use crate::ledger::metrics::Stages;
use crate::ledger::money::Minor;
use crate::ledger::trace;
use crate::ledger::transfer::{Posted, TransferRow};

/// A place in the book that a batch can stand on: a seq, and who sealed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: i64,
    pub(super) batch: Uuid,
}

/// A posting in a batch, and its rows there.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) item: QueuedPosting,
    pub(super) start: usize,
    pub(super) end: usize,
    /// What is held after it for the accounts that it touches.
    held: Vec<(AccountId, Minor)>,
}

/// An account that a batch brings into being.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenedAccount {
    pub(super) seq: i64,
    pub(super) account: AccountId,
    pub(super) currency: Currency,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: Uuid,
    pub(super) prev: Head,
    pub(super) rows: Vec<TransferRow>,
    pub(super) accepted: Vec<Accepted>,
    pub(super) born: Vec<OpenedAccount>,
    /// Refused, which is certain as soon as the batch is in the book: nobody has to look for a key.
    pub(super) refused: Vec<(QueuedPosting, Refusal)>,
    pub(super) undo: Vec<Undo>,
    /// The digest of everything in it.
    pub(super) content: [u8; 32],
    /// Sent over an earlier connection too: "stale" may mean that this attempt has won.
    pub(super) resent: bool,
    pub(super) stages: Stages,
    /// Of a trace of its own, where one of its postings is traced.
    pub(super) span: Box<Span>,
}

/// What has to be asked before these items can be answered or decided.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// The accounts of those who wait for one that is not in the cache, each once.
    pub(super) accounts: Vec<AccountId>,
    pub(super) waiting: Vec<QueuedPosting>,
    /// Refused unless the key was used: then the first attempt has succeeded.
    pub(super) refused: Vec<(QueuedPosting, Refusal)>,
    /// One of their keys was used, it is not known which.
    pub(super) suspects: Vec<QueuedPosting>,
    /// The head on which was refused, when no batch confirms it.
    pub(super) confirm: Option<Head>,
}

impl Lookup {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.refused.is_empty() && self.suspects.is_empty()
    }

    /// Everybody who waits for the answer, in order.
    pub(super) fn into_items(self) -> impl Iterator<Item = QueuedPosting> {
        self.waiting
            .into_iter()
            .chain(self.refused.into_iter().map(|(item, _)| item))
            .chain(self.suspects)
    }

    /// The keys to look up.
    pub(super) fn keys(&self) -> Vec<Uuid> {
        let refused = self.refused.iter().map(|(item, _)| item);
        refused
            .chain(&self.suspects)
            .filter_map(|item| item.posting.key)
            .map(|key| key.hash)
            .collect()
    }
}

/// What to do with what was taken from the queue.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) batch: Option<Batch>,
    pub(super) ask: Lookup,
}

/// Decides on what waits, in the order of arrival, up to the bound of a batch.
pub(super) fn plan(
    intake: &mut VecDeque<QueuedPosting>,
    cache: &mut Cache,
    decision: &mut Decision,
    rules: &Rules,
    prev: Head,
    legs_max: usize,
) -> Plan {
    let mut batch = Batch {
        id: Uuid::new_v4(),
        prev,
        rows: Vec::new(),
        accepted: Vec::with_capacity(intake.len().min(legs_max)),
        born: Vec::new(),
        refused: Vec::new(),
        undo: Vec::new(),
        content: [0; 32],
        resent: false,
        stages: Stages::begin(intake.front().map(|item| item.queued)),
        span: Box::new(Span::none()),
    };
    let mut ask = Lookup::default();
    while let Some(next) = intake.front() {
        let is_empty = batch.accepted.is_empty();
        let fits = batch.rows.len() + next.posting.legs.len() <= legs_max && !next.alone;
        if !is_empty && !fits {
            break;
        }
        let alone = next.alone;
        let item = intake.pop_front().expect("there is a first one");
        // All of them are touched, so that all stay.
        let unknown =
            decide::accounts_of(&item.posting.legs).filter(|id| !cache.touch(*id)).count();
        if unknown > 0 {
            // Those that are known too: they may be forgotten until the others are there.
            ask.accounts.extend(decide::accounts_of(&item.posting.legs));
            ask.waiting.push(item);
            continue;
        }
        match decide::decide(&item.posting.legs, rules, |id| cache.get(id), decision) {
            Ok(()) => batch.accept(item, decision, cache),
            Err(refusal) => {
                let refusal = refusal.in_leg(decision.refused_leg, &item.posting.legs);
                let refused =
                    if item.posting.key.is_some() { &mut ask.refused } else { &mut batch.refused };
                refused.push((item, refusal));
            }
        }
        if alone && !batch.accepted.is_empty() {
            break;
        }
    }
    cache.age();
    ask.accounts.sort_unstable();
    ask.accounts.dedup();
    if batch.accepted.is_empty() {
        // No seal will confirm what the refusals rest on.
        ask.refused.append(&mut batch.refused);
        ask.confirm = Some(prev);
        return Plan { batch: None, ask };
    }
    Plan { batch: Some(batch), ask }
}

impl Batch {
    fn accept(&mut self, item: QueuedPosting, decision: &Decision, cache: &mut Cache) {
        let start = self.rows.len();
        self.rows.extend_from_slice(&decision.rows);
        for new in &decision.new_accounts {
            let seq = self.seq_of(start + new.leg);
            self.born.push(OpenedAccount { seq, account: new.account, currency: new.currency });
        }
        self.undo.extend(decision.touched.iter().map(|(id, after)| cache.apply(*id, *after)));
        let held = decision.touched.iter().filter(|(_, after)| after.held > Minor::ZERO);
        let held = held.map(|(id, after)| (*id, after.held)).collect();
        self.accepted.push(Accepted { item, start, end: self.rows.len(), held });
    }

    /// The seq of the row at this place.
    pub(super) fn seq_of(&self, place: usize) -> i64 {
        self.prev.seq + 1 + i64::try_from(place).expect("a batch is small")
    }

    /// Where the book ends when this batch is in it.
    pub(super) fn head(&self) -> Head {
        Head { seq: self.seq_of(self.rows.len()) - 1, batch: self.id }
    }

    pub(super) fn has_companions(&self) -> bool {
        self.accepted.iter().any(|accepted| !accepted.item.posting.companions.is_empty())
    }

    /// Everybody in it, in order.
    pub(super) fn into_items(self) -> impl Iterator<Item = QueuedPosting> {
        let accepted = self.accepted.into_iter().map(|accepted| accepted.item);
        accepted.chain(self.refused.into_iter().map(|(item, _)| item))
    }

    /// What the poster of these rows is told.
    pub(super) fn posted(&self, accepted: &mut Accepted, at: OffsetDateTime) -> Posted {
        let (start, end) = (accepted.start, accepted.end);
        Posted {
            first_seq: self.seq_of(start),
            last_seq: self.seq_of(end) - 1,
            at,
            replayed: false,
            rows: self.rows[start..end].to_vec(),
            held: std::mem::take(&mut accepted.held),
        }
    }

    /// Digests the content, which is complete now.
    pub(super) fn seal(&mut self, book: i32) {
        // The order of the encoding; a leg can bring two accounts into being.
        self.born.sort_unstable_by_key(|born| (born.seq, born.account));
        let mut encoder = Encoder::new(book, self.prev.seq);
        for accepted in &self.accepted {
            let posting = &accepted.item.posting;
            for (row, leg) in self.rows[accepted.start..accepted.end].iter().zip(&posting.legs) {
                let metadata = leg.metadata.as_ref().map(|metadata| metadata.get());
                encoder.transfer(
                    row,
                    Attached { trace_id: posting.trace_id, linked: leg.linked, metadata },
                );
            }
        }
        for accepted in &self.accepted {
            if let Some(key) = accepted.item.posting.key {
                encoder.posting(key, self.seq_of(accepted.start), self.seq_of(accepted.end) - 1);
            }
        }
        for born in &self.born {
            encoder.account(born.account, born.seq, born.currency.decimals(), born.currency.code());
        }
        self.content = encoder.finish();
        self.stages.decided();
    }

    /// Begins its span, which ends with the batch.
    pub(super) fn trace(&mut self) {
        let postings = self.accepted.iter().map(|accepted| &accepted.item.span);
        *self.span = trace::of_batch(self.rows.len(), self.seq_of(0), postings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::account::Account;
    use crate::ledger::currency::Currencies;
    use crate::ledger::transfer::{Action, Leg, Posting, TransferKind};
    use crate::ledger::writer::Admission;

    #[test]
    fn who_waits_for_an_account_asks_for_all_of_his_again() {
        let euro = Currency::new("EUR", 2).unwrap();
        let rules = Rules { amount_max: Minor(100), currencies: Currencies::default() };
        let mut cache = Cache::new(8);
        cache.warm(AccountId(1), Some(Account::empty(euro)));
        let (debit, credit, amount) = (AccountId(1), AccountId(2), Minor(1));
        let action = Action::Move { kind: TransferKind::Transfer, debit, credit, amount };
        let posting = Posting { legs: vec![Leg::from(action); 2], ..Posting::default() };
        let (item, _answer) = Admission::new(10).admit(posting, Span::none()).unwrap();

        let head = Head { seq: 0, batch: Uuid::nil() };
        let mut intake = VecDeque::from([item]);
        let plan = plan(&mut intake, &mut cache, &mut Decision::default(), &rules, head, 16);

        assert!(plan.batch.is_none());
        assert_eq!(plan.ask.waiting.len(), 1);
        assert_eq!(plan.ask.accounts, [AccountId(1), AccountId(2)]);
    }
}
