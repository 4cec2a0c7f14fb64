//! A batch: accepted postings that are written to the ledger in one database transaction.

use std::collections::VecDeque;

use time::OffsetDateTime;
use tracing::Span;
use uuid::Uuid;

use super::cache::{AccountCache, AccountUndo};
use super::queue::QueuedPosting;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::decide::{self, Decision, Refusal, Rules};
use crate::ledger::encode::{BatchEncoder, TransferAttributes};
use crate::ledger::metrics::StageTimer;
use crate::ledger::money::Minor;
use crate::ledger::trace;
use crate::ledger::transfer::{Posted, TransferRow};

/// Head of a book: the last seq of its newest batch, and the id of that batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BookHead {
    pub(super) seq: i64,
    pub(super) batch: Uuid,
}

/// An accepted posting, and the range of its rows in the batch.
#[derive(Debug)]
pub(super) struct AcceptedPosting {
    pub(super) item: QueuedPosting,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Held balances after the posting, for those of its accounts that have a held balance.
    held: Vec<(AccountId, Minor)>,
}

/// An account that a batch creates.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenedAccount {
    pub(super) seq: i64,
    pub(super) account: AccountId,
    pub(super) currency: Currency,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: Uuid,
    pub(super) prev: BookHead,
    pub(super) rows: Vec<TransferRow>,
    pub(super) accepted: Vec<AcceptedPosting>,
    pub(super) opened: Vec<OpenedAccount>,
    /// Refused postings without an idempotency key. Their refusal is final once the batch is committed, which confirms
    /// the balances on which the refusal is based.
    pub(super) refused: Vec<(QueuedPosting, Refusal)>,
    pub(super) undo: Vec<AccountUndo>,
    /// Digest of the encoded content of the batch.
    pub(super) content: [u8; 32],
    /// Whether the batch was already sent over an earlier connection. If the database then refuses the batch because
    /// the batch's predecessor already has a successor, that successor may be this very batch, committed by the earlier
    /// attempt.
    pub(super) resent: bool,
    pub(super) timer: StageTimer,
    /// Root span of the batch's own trace; disabled if none of its postings is traced.
    pub(super) span: Box<Span>,
}

/// A query for the accounts and keys that postings depend on.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// All accounts of the waiting postings, without duplicates.
    pub(super) accounts: Vec<AccountId>,
    /// Postings that the writer cannot accept or refuse yet, because at least one of their accounts is not in the
    /// cache.
    pub(super) waiting: Vec<QueuedPosting>,
    /// Refused postings with an idempotency key. If the key is stored already, an earlier attempt succeeded, and the
    /// client gets the reply to that attempt.
    pub(super) refused: Vec<(QueuedPosting, Refusal)>,
    /// Postings of a batch that failed because at least one of their idempotency keys was used before.
    pub(super) suspects: Vec<QueuedPosting>,
    /// Head (newest batch) of the book on which the refusals are based. The refusals are final only if the lookup finds
    /// the same head. `None` if the refusals do not need this check.
    pub(super) expected_head: Option<BookHead>,
}

impl Lookup {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.refused.is_empty() && self.suspects.is_empty()
    }

    /// Returns all postings that are waiting for the result of the lookup.
    pub(super) fn into_items(self) -> impl Iterator<Item = QueuedPosting> {
        self.waiting
            .into_iter()
            .chain(self.refused.into_iter().map(|(item, _)| item))
            .chain(self.suspects)
    }

    /// Hashes of the idempotency keys to look up.
    pub(super) fn keys(&self) -> Vec<Uuid> {
        let refused = self.refused.iter().map(|(item, _)| item);
        refused
            .chain(&self.suspects)
            .filter_map(|item| item.posting.key)
            .map(|key| key.hash)
            .collect()
    }
}

/// Requests to send to the database after the waiting postings have been accepted or refused.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) batch: Option<Batch>,
    pub(super) lookup: Lookup,
}

/// Accepts or refuses the waiting postings in order of arrival, until the batch is full. Postings with an account that
/// is not in the cache are added to the lookup instead.
pub(super) fn plan(
    intake: &mut VecDeque<QueuedPosting>,
    cache: &mut AccountCache,
    decision: &mut Decision,
    rules: &Rules,
    prev: BookHead,
    legs_max: usize,
) -> Plan {
    let mut batch = Batch::new(prev, intake, legs_max);
    let mut lookup = Lookup::default();
    while let Some(next) = intake.front() {
        let is_empty = batch.accepted.is_empty();
        let fits = batch.rows.len() + next.posting.legs.len() <= legs_max && !next.alone;
        if !is_empty && !fits {
            break;
        }
        let alone = next.alone;
        let item = intake.pop_front().expect("the front was just inspected");
        // Touches every account, even after a miss, so that none of them is evicted.
        let misses = decide::accounts_of(&item.posting.legs).filter(|id| !cache.touch(*id)).count();
        if misses > 0 {
            // Cached accounts are looked up, too: they may be evicted before the missing accounts arrive.
            lookup.accounts.extend(decide::accounts_of(&item.posting.legs));
            lookup.waiting.push(item);
            continue;
        }
        match decide::decide(&item.posting.legs, rules, |id| cache.get(id), decision) {
            Ok(()) => batch.accept(item, decision, cache),
            Err(refusal) => {
                let refusal = refusal.in_leg(decision.refused_leg, &item.posting.legs);
                let refused = if item.posting.key.is_some() {
                    &mut lookup.refused
                } else {
                    &mut batch.refused
                };
                refused.push((item, refusal));
            }
        }
        if alone && !batch.accepted.is_empty() {
            break;
        }
    }
    cache.evict();
    lookup.accounts.sort_unstable();
    lookup.accounts.dedup();
    if batch.accepted.is_empty() {
        // There is no batch whose commit would confirm the balances on which the refusals are based, so a lookup
        // confirms them.
        lookup.refused.append(&mut batch.refused);
        lookup.expected_head = Some(prev);
        return Plan { batch: None, lookup };
    }
    Plan { batch: Some(batch), lookup }
}

impl Batch {
    fn new(prev: BookHead, intake: &VecDeque<QueuedPosting>, legs_max: usize) -> Self {
        Self {
            id: Uuid::new_v4(),
            prev,
            rows: Vec::new(),
            accepted: Vec::with_capacity(intake.len().min(legs_max)),
            opened: Vec::new(),
            refused: Vec::new(),
            undo: Vec::new(),
            content: [0; 32],
            resent: false,
            timer: StageTimer::start(intake.front().map(|item| item.queued)),
            span: Box::new(Span::none()),
        }
    }

    fn accept(&mut self, item: QueuedPosting, decision: &Decision, cache: &mut AccountCache) {
        let start = self.rows.len();
        self.rows.extend_from_slice(&decision.rows);
        for new in &decision.new_accounts {
            let seq = self.seq_of(start + new.leg);
            self.opened.push(OpenedAccount { seq, account: new.account, currency: new.currency });
        }
        self.undo.extend(decision.touched.iter().map(|(id, after)| cache.apply(*id, *after)));
        let held = decision.touched.iter().filter(|(_, after)| after.held > Minor::ZERO);
        let held = held.map(|(id, after)| (*id, after.held)).collect();
        self.accepted.push(AcceptedPosting { item, start, end: self.rows.len(), held });
    }

    /// The seq of the row at this index.
    pub(super) fn seq_of(&self, index: usize) -> i64 {
        self.prev.seq + 1 + i64::try_from(index).expect("a batch is small")
    }

    /// The head of the book once this batch is committed.
    pub(super) fn head(&self) -> BookHead {
        BookHead { seq: self.seq_of(self.rows.len()) - 1, batch: self.id }
    }

    pub(super) fn has_companions(&self) -> bool {
        self.accepted.iter().any(|accepted| !accepted.item.posting.companions.is_empty())
    }

    /// All postings of the batch: the accepted postings in order, then the refused postings.
    pub(super) fn into_items(self) -> impl Iterator<Item = QueuedPosting> {
        let accepted = self.accepted.into_iter().map(|accepted| accepted.item);
        accepted.chain(self.refused.into_iter().map(|(item, _)| item))
    }

    /// Builds the acknowledgment of an accepted posting.
    pub(super) fn posted(&self, accepted: &mut AcceptedPosting, at: OffsetDateTime) -> Posted {
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

    /// Completes the batch: computes the digest of its content.
    pub(super) fn seal(&mut self, book: i32) {
        // Sorts into the order that the encoding requires. The sort key includes the account, because a leg can create
        // two accounts.
        self.opened.sort_unstable_by_key(|opened| (opened.seq, opened.account));
        let mut encoder = BatchEncoder::new(book, self.prev.seq);
        for accepted in &self.accepted {
            let posting = &accepted.item.posting;
            for (row, leg) in self.rows[accepted.start..accepted.end].iter().zip(&posting.legs) {
                let metadata = leg.metadata.as_ref().map(|metadata| metadata.get());
                let (trace_id, linked) = (posting.trace_id, leg.linked);
                let attributes = TransferAttributes { trace_id, linked, metadata, home: None };
                encoder.add_transfer(row, attributes);
            }
        }
        for accepted in &self.accepted {
            if let Some(key) = accepted.item.posting.key {
                let (first, last) = (self.seq_of(accepted.start), self.seq_of(accepted.end) - 1);
                encoder.add_posting(key, first, last);
            }
        }
        for OpenedAccount { seq, account, currency } in &self.opened {
            encoder.add_account(*account, *seq, currency.decimals(), currency.code());
        }
        self.content = encoder.finish();
        self.timer.mark_sent();
    }

    /// Opens the batch's span, which closes when the batch is dropped.
    pub(super) fn open_span(&mut self) {
        let postings = self.accepted.iter().map(|accepted| &accepted.item.span);
        *self.span = trace::batch_span(self.rows.len(), self.seq_of(0), postings);
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
    fn a_posting_with_an_uncached_account_looks_up_all_of_its_accounts() {
        let euro = Currency::new("EUR", 2).unwrap();
        let rules = Rules { amount_max: Minor(100), currencies: Currencies::default() };
        let mut cache = AccountCache::new(8);
        cache.warm(AccountId(1), Some(Account::empty(euro)));
        let (debit, credit, amount) = (AccountId(1), AccountId(2), Minor(1));
        let action = Action::Move { kind: TransferKind::Transfer, debit, credit, amount };
        let posting = Posting { legs: vec![Leg::from(action); 2], ..Posting::default() };
        let (item, _reply) = Admission::new(10).admit(posting, Span::none()).unwrap();

        let head = BookHead { seq: 0, batch: Uuid::nil() };
        let mut intake = VecDeque::from([item]);
        let plan = plan(&mut intake, &mut cache, &mut Decision::default(), &rules, head, 16);

        assert!(plan.batch.is_none());
        assert_eq!(plan.lookup.waiting.len(), 1);
        assert_eq!(plan.lookup.accounts, [AccountId(1), AccountId(2)]);
    }
}
