//! The checks, on rows in memory.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::datetime;

use super::sql::{Born, KeyedPosting, Seal, Transfer};
use super::{Anchor, FAULTS_MAX, Fault, Report};
use crate::ledger::account::AccountId;
use crate::ledger::encode::{Attached, Encoder};
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Key, Kind, Row};

/// What Postgres counts microseconds from.
const EPOCH: OffsetDateTime = datetime!(2000-01-01 00:00 UTC);

/// Everything that is known after the rows so far.
pub(super) struct Checker<'a> {
    book: i32,
    anchor: Option<&'a Anchor>,
    anchor_seen: bool,
    /// The seal before: its seq, moment and hash.
    stands_on: (i64, OffsetDateTime, Vec<u8>),
    balances: HashMap<i64, i64>,
    currencies: HashMap<i64, (String, i16)>,
    transfers: i64,
    seals: i64,
    postings: i64,
    faults: Vec<Fault>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(book: i32, first: Option<Seal>, anchor: Option<&'a Anchor>) -> Self {
        let mut checker = Self {
            book,
            anchor,
            anchor_seen: false,
            stands_on: (0, EPOCH, Vec::new()),
            balances: HashMap::new(),
            currencies: HashMap::new(),
            transfers: 0,
            seals: 0,
            postings: 0,
            faults: Vec::new(),
        };
        match first.filter(|seal| seal.seq == 0) {
            Some(seal) => {
                let expected = Sha256::digest(book.to_be_bytes());
                if seal.hash != expected.as_slice() {
                    checker.fault("seal 0", "its hash is not that of an empty book");
                }
                checker.hold_against_anchor(&seal);
                checker.stands_on = (0, seal.at, seal.hash);
            }
            None => checker.fault("seal 0", "it is missing"),
        }
        checker
    }

    /// Checks the next stretch of the book.
    pub(super) fn chunk(
        &mut self,
        seals: &[Seal],
        transfers: &[Transfer],
        postings: &[KeyedPosting],
        accounts: &[Born],
    ) {
        let (mut transfers, mut postings, mut accounts) = (transfers, postings, accounts);
        for seal in seals {
            let of_seal = take_to(&mut transfers, seal.seq, |transfer| transfer.seq);
            let keyed = take_to(&mut postings, seal.seq, |posting| posting.first_seq);
            let born = take_to(&mut accounts, seal.seq, |account| account.seq);
            for account in born {
                let currency = (account.currency.clone(), account.decimals);
                self.currencies.insert(account.account, currency);
            }
            self.seal(seal, of_seal, keyed, born);
        }
    }

    pub(super) fn finish(mut self, end: i64) -> Report {
        let (seq, _, hash) = &self.stands_on;
        let hash = hash.as_slice().try_into().unwrap_or([0; 32]);
        let head = Anchor { seq: *seq, hash };
        if head.seq != end {
            self.fault(&format!("seal {end}"), "the chain of seals does not lead to it");
        }
        if let Some(anchor) = self.anchor.filter(|_| !self.anchor_seen) {
            self.fault(&format!("seal {}", anchor.seq), "the anchor's seal is not in the book");
        }
        let mut sums: HashMap<&str, i128> = HashMap::new();
        for (account, balance) in &self.balances {
            let currency = self.currencies.get(account).map_or("?", |(code, _)| code);
            *sums.entry(currency).or_default() += i128::from(*balance);
        }
        let off: Vec<_> = sums.iter().filter(|(_, sum)| **sum != 0).collect();
        let off: Vec<_> =
            off.iter().map(|(code, sum)| (format!("currency {code}"), **sum)).collect();
        for (place, sum) in off {
            self.fault(&place, &format!("its balances add up to {sum} minor units, not to 0"));
        }
        let Self { transfers, seals, postings, faults, .. } = self;
        Report { transfers, seals, postings, accounts: self.currencies.len(), head, faults }
    }

    fn fault(&mut self, place: &str, says: &str) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { place: place.to_owned(), says: says.to_owned() });
        }
    }

    fn seal(&mut self, seal: &Seal, transfers: &[Transfer], keyed: &[KeyedPosting], born: &[Born]) {
        let place = format!("seal {}", seal.seq);
        let (prev_seq, prev_at, prev_hash) = self.stands_on.clone();
        if seal.prev_seq != Some(prev_seq) {
            self.fault(&place, &format!("it does not stand on seal {prev_seq}"));
        }
        if seal.at < prev_at {
            self.fault(&place, "it is earlier than the seal before");
        }
        let mut content = Encoder::new(self.book, prev_seq);
        for (transfer, expected) in transfers.iter().zip(prev_seq + 1..) {
            self.transfer(transfer, expected, seal);
            match row_of(transfer) {
                Some(row) => content.transfer(&row, attached(transfer)),
                None => self.fault(&format!("transfer {}", transfer.seq), "its kind is unknown"),
            }
        }
        if transfers.last().map_or(prev_seq, |transfer| transfer.seq) != seal.seq {
            self.fault(&place, "transfers between it and the seal before are missing");
        }
        for posting in keyed {
            let key = Key { hash: posting.key_hash, content: posting.content_hash };
            content.posting(key, posting.first_seq, posting.last_seq);
        }
        for account in born {
            let decimals = u8::try_from(account.decimals).unwrap_or(u8::MAX);
            content.account(AccountId(account.account), account.seq, decimals, &account.currency);
        }
        if seal.hash != chain(&prev_hash, prev_at, seal, content.finish()) {
            self.fault(
                &place,
                "its hash is not that of what stands between it and the seal before",
            );
        }
        self.hold_against_anchor(seal);
        self.seals += 1;
        self.postings += i64::try_from(keyed.len()).unwrap_or(i64::MAX);
        self.stands_on = (seal.seq, seal.at, seal.hash.clone());
    }

    fn transfer(&mut self, transfer: &Transfer, expected: i64, seal: &Seal) {
        let place = format!("transfer {}", transfer.seq);
        self.transfers += 1;
        if transfer.seq != expected {
            self.fault(&place, &format!("transfer {expected} should come here"));
        }
        if transfer.at != seal.at {
            self.fault(&place, "its moment is not that of its seal");
        }
        let [debit, credit] = [transfer.debit, transfer.credit].map(|id| self.currencies.get(&id));
        if debit.is_none() || debit != credit {
            self.fault(&place, "its accounts do not exist, or have different currencies");
        }
        let sides = [
            ("debit", transfer.debit, -i128::from(transfer.amount), transfer.debit_balance),
            ("credit", transfer.credit, i128::from(transfer.amount), transfer.credit_balance),
        ];
        for (side, account, change, says) in sides {
            let before = self.balances.get(&account).copied().unwrap_or_default();
            let should = i128::from(before) + change;
            if should != i128::from(says) {
                self.fault(
                    &place,
                    &format!(
                        "account {account} ({side}) has {says} after it, and should have {should}"
                    ),
                );
            }
            let class = AccountId(account).class();
            if !class.is_some_and(|class| class.allows(Minor(says))) {
                self.fault(&place, &format!("account {account} ({side}) may not have {says}"));
            }
            // What it should be, so that one wrong line is not blamed on all that follow.
            self.balances.insert(account, i64::try_from(should).unwrap_or(says));
        }
    }

    fn hold_against_anchor(&mut self, seal: &Seal) {
        let Some(anchor) = self.anchor.filter(|anchor| anchor.seq == seal.seq) else { return };
        self.anchor_seen = true;
        if seal.hash != anchor.hash {
            self.fault(
                &format!("seal {}", seal.seq),
                "its hash is not the anchor's: what is before it was rewritten",
            );
        }
    }
}

/// Splits off what belongs to the seal at `seq`.
fn take_to<'a, T>(rows: &mut &'a [T], seq: i64, seq_of: impl Fn(&T) -> i64) -> &'a [T] {
    let (taken, rest) = rows.split_at(rows.partition_point(|row| seq_of(row) <= seq));
    *rows = rest;
    taken
}

fn row_of(transfer: &Transfer) -> Option<Row> {
    Some(Row {
        kind: Kind::of_code(transfer.kind)?,
        leg: transfer.leg,
        legs: transfer.legs,
        debit: AccountId(transfer.debit),
        credit: AccountId(transfer.credit),
        amount: Minor(transfer.amount),
        debit_balance: Minor(transfer.debit_balance),
        credit_balance: Minor(transfer.credit_balance),
    })
}

fn attached(transfer: &Transfer) -> Attached<'_> {
    let Transfer { trace_id, linked, metadata, .. } = transfer;
    Attached { trace_id: *trace_id, linked: *linked, metadata: metadata.as_deref() }
}

/// The hash that `ledger.post` gives a seal.
fn chain(prev_hash: &[u8], prev_at: OffsetDateTime, seal: &Seal, content: [u8; 32]) -> Vec<u8> {
    let since = (prev_at - EPOCH).whole_microseconds();
    let microseconds = i64::try_from(since).unwrap_or(i64::MAX);
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(prev_hash);
    hash.update(microseconds.to_be_bytes());
    hash.update(seal.seq.to_be_bytes());
    hash.update(seal.batch_id.as_bytes());
    hash.update(content);
    hash.finalize().to_vec()
}
