//! The checks, on rows in memory.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::macros::datetime;

use super::sql::{self, Born, KeyedPosting, Seal};
use super::{Anchor, Check, Chunk, FAULTS_MAX, Fault, VerifyReport};
use crate::idempotency::HashedKey;
use crate::ledger::account::AccountId;
use crate::ledger::encode::{Attached, Encoder};
use crate::ledger::money::Minor;
use crate::ledger::read::Line;

/// What Postgres counts microseconds from.
const EPOCH: OffsetDateTime = datetime!(2000-01-01 00:00 UTC);

/// Most accounts whose balances a checker keeps that goes on for ever.
const KNOWN_MAX: usize = 200_000;

/// Everything that is known after the rows so far.
pub struct Checker {
    book: i32,
    anchor: Option<Anchor>,
    anchor_seen: bool,
    /// The seal before: its seq, moment and hash.
    stands_on: (i64, OffsetDateTime, Vec<u8>),
    balances: HashMap<i64, i64>,
    currencies: HashMap<i64, (String, i16)>,
    transfers: i64,
    seals: i64,
    postings: i64,
    faults: Vec<Fault>,
    imbalances: HashMap<String, i128>,
}

impl Checker {
    pub fn new(book: i32, first: Option<Seal>, anchor: Option<Anchor>) -> Self {
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
            imbalances: HashMap::new(),
        };
        match first.filter(|seal| seal.seq == 0) {
            Some(seal) => {
                let expected = Sha256::digest(book.to_be_bytes());
                if seal.hash != expected.as_slice() {
                    checker.fault(Check::Chain, "seal 0", "its hash is not that of an empty book");
                }
                checker.hold_against_anchor(&seal);
                checker.stands_on = (0, seal.at, seal.hash);
            }
            None => checker.fault(Check::Chain, "seal 0", "it is missing"),
        }
        checker
    }

    /// Goes on behind a seal that was checked before. Balances are taken from the book as they are needed.
    pub async fn resume(db: &mut PgConnection, book: i32, seq: i64) -> sqlx::Result<Self> {
        let seal = sql::seals(db, book, seq - 1, seq).await?.into_iter().next();
        let first = if seq == 0 { seal.clone() } else { sql::first_seal(db, book).await? };
        let mut checker = Self::new(book, first, None);
        if let Some(seal) = seal {
            checker.stands_on = (seal.seq, seal.at, seal.hash);
        } else {
            let says = "it was there before and is missing";
            checker.fault(Check::Chain, &format!("seal {seq}"), says);
        }
        Ok(checker)
    }

    /// Looks up what the accounts of a chunk had before it, as far as that is not known.
    pub async fn prepare(&mut self, db: &mut PgConnection, chunk: &Chunk) -> sqlx::Result<()> {
        if self.balances.len() > KNOWN_MAX {
            self.balances.clear();
            self.currencies.clear();
        }
        let touched = chunk.transfers.iter().flat_map(|line| [line.debit, line.credit]);
        let unknown: BTreeSet<i64> =
            touched.filter(|account| !self.currencies.contains_key(account)).collect();
        let unknown: Vec<i64> = unknown.into_iter().collect();
        for holding in sql::holdings(db, self.book, &unknown, self.reached()).await? {
            self.balances.insert(holding.account, holding.balance);
            self.currencies.insert(holding.account, (holding.currency, holding.decimals));
        }
        Ok(())
    }

    /// The last seal that was checked.
    pub fn reached(&self) -> i64 {
        self.stands_on.0
    }

    /// That seal as an anchor.
    pub fn head(&self) -> Anchor {
        let (seq, _, hash) = &self.stands_on;
        Anchor { seq: *seq, hash: hash.as_slice().try_into().unwrap_or([0; 32]) }
    }

    /// What was found since it was asked last.
    pub fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// By how much the running balances are off in each currency, since it was asked last.
    pub fn take_imbalances(&mut self) -> HashMap<String, i128> {
        std::mem::take(&mut self.imbalances)
    }

    /// Checks the next stretch of the book.
    pub fn chunk(&mut self, chunk: &Chunk) {
        let Chunk { seals, transfers, postings, accounts, .. } = chunk;
        let (mut transfers, mut postings, mut accounts) =
            (transfers.as_slice(), postings.as_slice(), accounts.as_slice());
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

    pub(super) fn finish(mut self, end: i64) -> VerifyReport {
        let head = self.head();
        if head.seq != end {
            self.fault(
                Check::Chain,
                &format!("seal {end}"),
                "the chain of seals does not lead to it",
            );
        }
        if let Some(anchor) = self.anchor.take().filter(|_| !self.anchor_seen) {
            let place = format!("seal {}", anchor.seq);
            self.fault(Check::Anchor, &place, "the anchor's seal is not in the book");
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
            self.fault(
                Check::Conservation,
                &place,
                &format!("its balances add up to {sum} minor units, not to 0"),
            );
        }
        let Self { transfers, seals, postings, faults, .. } = self;
        VerifyReport { transfers, seals, postings, accounts: self.currencies.len(), head, faults }
    }

    fn fault(&mut self, check: Check, place: &str, says: &str) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { check, place: place.to_owned(), says: says.to_owned() });
        }
    }

    fn seal(&mut self, seal: &Seal, transfers: &[Line], keyed: &[KeyedPosting], born: &[Born]) {
        let place = format!("seal {}", seal.seq);
        let (prev_seq, prev_at, prev_hash) = self.stands_on.clone();
        if seal.prev_seq != Some(prev_seq) {
            self.fault(Check::Chain, &place, &format!("it does not stand on seal {prev_seq}"));
        }
        if seal.at < prev_at {
            self.fault(Check::Chain, &place, "it is earlier than the seal before");
        }
        let mut content = Encoder::new(self.book, prev_seq);
        for (transfer, expected) in transfers.iter().zip(prev_seq + 1..) {
            self.transfer(transfer, expected, seal);
            if let Some(row) = transfer.row() {
                content.transfer(&row, attached(transfer));
            } else {
                let place = format!("transfer {}", transfer.seq);
                self.fault(Check::Shape, &place, "its kind is unknown");
            }
        }
        if transfers.last().map_or(prev_seq, |transfer| transfer.seq) != seal.seq {
            self.fault(Check::Gap, &place, "transfers between it and the seal before are missing");
        }
        for posting in keyed {
            let key = HashedKey { hash: posting.key_hash, content: posting.content_hash };
            content.posting(key, posting.first_seq, posting.last_seq);
        }
        for account in born {
            let decimals = u8::try_from(account.decimals).unwrap_or(u8::MAX);
            content.account(AccountId(account.account), account.seq, decimals, &account.currency);
        }
        if seal.hash != chain(&prev_hash, prev_at, seal, content.finish()) {
            self.fault(
                Check::Chain,
                &place,
                "its hash is not that of what stands between it and the seal before",
            );
        }
        self.hold_against_anchor(seal);
        self.seals += 1;
        self.postings += i64::try_from(keyed.len()).unwrap_or(i64::MAX);
        self.stands_on = (seal.seq, seal.at, seal.hash.clone());
    }

    fn transfer(&mut self, transfer: &Line, expected: i64, seal: &Seal) {
        let place = format!("transfer {}", transfer.seq);
        self.transfers += 1;
        if transfer.seq != expected {
            self.fault(Check::Gap, &place, &format!("transfer {expected} should come here"));
        }
        if transfer.at != seal.at {
            self.fault(Check::Chain, &place, "its moment is not that of its seal");
        }
        let [debit, credit] = [transfer.debit, transfer.credit].map(|id| self.currencies.get(&id));
        if debit.is_none() || debit != credit {
            self.fault(
                Check::Shape,
                &place,
                "its accounts do not exist, or have different currencies",
            );
        }
        let sides = [
            ("debit", transfer.debit, -i128::from(transfer.amount), transfer.debit_balance),
            ("credit", transfer.credit, i128::from(transfer.amount), transfer.credit_balance),
        ];
        for (side, account, change, says) in sides {
            let before = self.balances.get(&account).copied().unwrap_or_default();
            let should = i128::from(before) + change;
            if should != i128::from(says) {
                let currency = self.currencies.get(&account).map_or("?", |(code, _)| code);
                *self.imbalances.entry(currency.to_owned()).or_default() +=
                    i128::from(says) - should;
                self.fault(
                    Check::RunningBalance,
                    &place,
                    &format!(
                        "account {account} ({side}) has {says} after it, and should have {should}"
                    ),
                );
            }
            let class = AccountId(account).class();
            if !class.is_some_and(|class| class.allows(Minor(says))) {
                self.fault(
                    Check::Floor,
                    &place,
                    &format!("account {account} ({side}) may not have {says}"),
                );
            }
            // What it should be, so that one wrong line is not blamed on all that follow.
            self.balances.insert(account, i64::try_from(should).unwrap_or(says));
        }
    }

    fn hold_against_anchor(&mut self, seal: &Seal) {
        let Some(anchor) = self.anchor.as_ref().filter(|anchor| anchor.seq == seal.seq) else {
            return;
        };
        self.anchor_seen = true;
        if seal.hash != anchor.hash {
            self.fault(
                Check::Anchor,
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

fn attached(transfer: &Line) -> Attached<'_> {
    let Line { trace_id, linked, metadata, .. } = transfer;
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
