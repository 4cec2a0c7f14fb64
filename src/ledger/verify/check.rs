//! Checks the rows of a book in memory, both for the auditor and for `revwallet verify`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::macros::datetime;

use super::copies;
use super::sql::{self, KeyedPosting, StoredAccount, StoredSeal};
use super::{Anchor, BookChunk, BookFault, CheckKind, FAULTS_MAX, VerifyReport};
use crate::idempotency_key::HashedKey;
use crate::ledger::account::AccountId;
use crate::ledger::book::{book_of_account, first_seal};
use crate::ledger::encode::{BatchEncoder, TransferAttributes};
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;

/// Epoch of PostgreSQL timestamps. The hash of a seal covers a time as the number of microseconds since this epoch.
const EPOCH: OffsetDateTime = datetime!(2000-01-01 00:00 UTC);

/// Maximum number of accounts that the checker of a long-running process (the auditor) keeps in memory.
const ACCOUNTS_MAX: usize = 200_000;

/// Size of the seq range for which one query reads the accounts that were created in the archived part of a book.
const ARCHIVED_ACCOUNTS_SEQS: i64 = 50_000;

/// The last checked seal (the row that ends a batch), which the next seal has to follow.
#[derive(Debug, Clone)]
struct PreviousSeal {
    seq: i64,
    at: OffsetDateTime,
    hash: Vec<u8>,
}

/// Checks a book batch by batch, and remembers the balances after the rows that it has checked.
pub struct BookChecker {
    book: i32,
    /// Anchors (known hashes of seals) that the checker has not reached yet.
    anchors: Vec<Anchor>,
    previous: PreviousSeal,
    balances: HashMap<i64, i64>,
    currencies: HashMap<i64, (String, i16)>,
    transfers: i64,
    seals: i64,
    postings: i64,
    faults: Vec<BookFault>,
    imbalances: HashMap<String, i128>,
}

impl BookChecker {
    pub fn new(book: i32, first: Option<StoredSeal>, anchors: Vec<Anchor>) -> Self {
        let mut checker = Self {
            book,
            anchors,
            previous: PreviousSeal { seq: first_seal(book), at: EPOCH, hash: Vec::new() },
            balances: HashMap::new(),
            currencies: HashMap::new(),
            transfers: 0,
            seals: 0,
            postings: 0,
            faults: Vec::new(),
            imbalances: HashMap::new(),
        };
        let place = format_args!("seal {}", first_seal(book));
        match first.filter(|seal| seal.seq == first_seal(book)) {
            Some(seal) => {
                let expected = Sha256::digest(book.to_be_bytes());
                if seal.hash != expected.as_slice() {
                    let detail = "its hash differs from that of an empty book";
                    checker.add_fault(CheckKind::Chain, place, detail);
                }
                checker.check_anchors(&seal);
                checker.previous = PreviousSeal { seq: seal.seq, at: seal.at, hash: seal.hash };
            }
            None => checker.add_fault(CheckKind::Chain, place, "it is missing"),
        }
        checker
    }

    /// Creates a checker that continues after a seal that was checked before. Balances are loaded from the database on
    /// demand.
    pub async fn resume(db: &mut PgConnection, book: i32, seq: i64) -> sqlx::Result<Self> {
        let seal = sql::seals(db, book, seq - 1, seq).await?.into_iter().next();
        let first =
            if seq == first_seal(book) { seal.clone() } else { sql::first_seal(db, book).await? };
        let mut checker = Self::new(book, first, Vec::new());
        if let Some(seal) = seal {
            checker.previous = PreviousSeal { seq: seal.seq, at: seal.at, hash: seal.hash };
        } else {
            let detail = "it was checked before and is missing now";
            checker.add_fault(CheckKind::Chain, format_args!("seal {seq}"), detail);
        }
        Ok(checker)
    }

    /// Skips the archived part of the book, which ends at the seq `end`: only checks that the archived seals form a
    /// chain, and loads the balances at the end.
    pub(super) async fn pass_archive(
        &mut self,
        db: &mut PgConnection,
        end: i64,
    ) -> sqlx::Result<()> {
        while self.checked_seq() < end {
            let seals = sql::seals(db, self.book, self.checked_seq(), end).await?;
            if seals.is_empty() {
                let detail = "it ends the archive and is missing";
                self.add_fault(CheckKind::Chain, format_args!("seal {end}"), detail);
                break;
            }
            for seal in seals {
                self.check_place(&seal);
                self.check_anchors(&seal);
                self.previous = PreviousSeal { seq: seal.seq, at: seal.at, hash: seal.hash };
            }
        }
        let mut after = first_seal(self.book);
        while after < end {
            let last = end.min(after + ARCHIVED_ACCOUNTS_SEQS);
            let created = sql::accounts(db, self.book, after, last).await?;
            let accounts: Vec<i64> = created.iter().map(|account| account.account).collect();
            for found in sql::account_balances(db, self.book, &accounts, end).await? {
                self.balances.insert(found.account, found.balance);
                self.currencies.insert(found.account, (found.currency, found.decimals));
            }
            after = last;
        }
        Ok(())
    }

    /// Checks that a seal follows the previous seal.
    fn check_place(&mut self, seal: &StoredSeal) {
        let place = format_args!("seal {}", seal.seq);
        let previous = self.previous.seq;
        if seal.prev_seq != Some(previous) {
            let detail = format!("it does not name seal {previous} as its predecessor");
            self.add_fault(CheckKind::Chain, place, &detail);
        }
        if seal.at < self.previous.at {
            self.add_fault(CheckKind::Chain, place, "it is earlier than the previous seal");
        }
    }

    /// Loads the accounts that a chunk touches and that are not in memory, with their balances before the chunk.
    pub async fn load_accounts(
        &mut self,
        db: &mut PgConnection,
        chunk: &BookChunk,
    ) -> sqlx::Result<()> {
        if self.balances.len() > ACCOUNTS_MAX {
            self.balances.clear();
            self.currencies.clear();
        }
        let touched = chunk.transfers.iter().flat_map(|row| [row.debit, row.credit]);
        let missing: BTreeSet<i64> =
            touched.filter(|account| !self.currencies.contains_key(account)).collect();
        let missing: Vec<i64> = missing.into_iter().collect();
        for found in sql::account_balances(db, self.book, &missing, self.checked_seq()).await? {
            self.balances.insert(found.account, found.balance);
            self.currencies.insert(found.account, (found.currency, found.decimals));
        }
        Ok(())
    }

    /// Returns the seq of the last checked seal.
    pub fn checked_seq(&self) -> i64 {
        self.previous.seq
    }

    /// Returns the seq and the hash of the last checked seal, which a later check can use as an anchor.
    pub fn head(&self) -> Anchor {
        let PreviousSeal { seq, hash, .. } = &self.previous;
        Anchor { seq: *seq, hash: hash.as_slice().try_into().unwrap_or([0; 32]) }
    }

    /// Returns the faults that were found since the last call.
    pub fn take_faults(&mut self) -> Vec<BookFault> {
        std::mem::take(&mut self.faults)
    }

    /// Returns the differences between stored and expected balances that were found since the last call, summed by
    /// currency.
    pub fn take_imbalances(&mut self) -> HashMap<String, i128> {
        std::mem::take(&mut self.imbalances)
    }

    /// Checks that each leg that touches several books has matching rows in all of these books.
    pub async fn check_copies(
        &mut self,
        db: &mut PgConnection,
        chunk: &BookChunk,
    ) -> sqlx::Result<()> {
        let mut faults = copies::faults(db, self.book, &chunk.transfers).await?;
        if !faults.is_empty() {
            // On a Citus cluster, a transfer between books becomes visible in one book before the other.
            super::sql::wait_for_postings(db).await?;
            faults = copies::faults(db, self.book, &chunk.transfers).await?;
        }
        for (seq, detail) in faults {
            self.add_fault(CheckKind::Copies, format_args!("transfer {seq}"), detail);
        }
        Ok(())
    }

    /// Checks the next chunk of the book.
    pub fn check_chunk(&mut self, chunk: &BookChunk) {
        let BookChunk { seals, transfers, postings, accounts, .. } = chunk;
        let (mut transfers, mut postings, mut accounts) =
            (transfers.as_slice(), postings.as_slice(), accounts.as_slice());
        for seal in seals {
            let rows = split_up_to(&mut transfers, seal.seq, |row| row.seq);
            let keyed = split_up_to(&mut postings, seal.seq, |posting| posting.first_seq);
            let created = split_up_to(&mut accounts, seal.seq, |account| account.seq);
            for account in created {
                let currency = (account.currency.clone(), account.decimals);
                self.currencies.insert(account.account, currency);
            }
            self.check_seal(seal, rows, keyed, created);
        }
    }

    pub(super) fn finish(mut self, end: i64) -> VerifyReport {
        let head = self.head();
        if head.seq != end {
            self.add_fault(
                CheckKind::Chain,
                format_args!("seal {end}"),
                "the chain of seals does not lead to it",
            );
        }
        for anchor in std::mem::take(&mut self.anchors) {
            let place = format_args!("seal {}", anchor.seq);
            self.add_fault(CheckKind::Anchor, place, "the anchor's seal is not in the book");
        }
        let mut sums: HashMap<&str, i128> = HashMap::new();
        for (account, balance) in &self.balances {
            let currency = self.currencies.get(account).map_or("?", |(code, _)| code);
            *sums.entry(currency).or_default() += i128::from(*balance);
        }
        let nonzero: Vec<_> = sums
            .iter()
            .filter(|(_, sum)| **sum != 0)
            .map(|(code, sum)| (format!("currency {code}"), *sum))
            .collect();
        for (place, sum) in nonzero {
            self.add_fault(
                CheckKind::Conservation,
                place,
                &format!("its balances add up to {sum} minor units instead of 0"),
            );
        }
        let Self { transfers, seals, postings, faults, .. } = self;
        VerifyReport {
            archived_until: None,
            transfers,
            seals,
            postings,
            accounts: self.currencies.len(),
            head,
            other_archives: Vec::new(),
            other_heads: Vec::new(),
            faults,
        }
    }

    fn add_fault(&mut self, check: CheckKind, place: impl fmt::Display, detail: &str) {
        if self.faults.len() < FAULTS_MAX {
            let (place, detail) = (place.to_string(), detail.to_owned());
            self.faults.push(BookFault { check, place, detail });
        }
    }

    fn check_seal(
        &mut self,
        seal: &StoredSeal,
        transfers: &[BookRow],
        keyed: &[KeyedPosting],
        created: &[StoredAccount],
    ) {
        let place = format_args!("seal {}", seal.seq);
        let previous = self.previous.clone();
        self.check_place(seal);
        let mut content = BatchEncoder::new(self.book, previous.seq);
        for (transfer, expected) in transfers.iter().zip(previous.seq + 1..) {
            self.check_transfer(transfer, expected, seal);
            if let Some(row) = transfer.transfer_row() {
                content.add_transfer(&row, attributes_of(transfer));
            } else {
                let place = format_args!("transfer {}", transfer.seq);
                self.add_fault(CheckKind::Shape, place, "its kind is unknown");
            }
        }
        if transfers.last().map_or(previous.seq, |transfer| transfer.seq) != seal.seq {
            let detail = "transfers between it and the previous seal are missing";
            self.add_fault(CheckKind::Gap, place, detail);
        }
        for posting in keyed {
            let key = HashedKey { hash: posting.key_hash, content: posting.content_hash };
            content.add_posting(key, posting.first_seq, posting.last_seq);
        }
        for account in created {
            let StoredAccount { account, seq, decimals, currency } = account;
            let decimals = u8::try_from(*decimals).unwrap_or(u8::MAX);
            content.add_account(AccountId(*account), *seq, decimals, currency);
        }
        if seal.hash != seal_hash(&previous, seal, content.finish()) {
            let detail = "its hash differs from that of the rows since the previous seal";
            self.add_fault(CheckKind::Chain, place, detail);
        }
        self.check_anchors(seal);
        self.seals += 1;
        self.postings += i64::try_from(keyed.len()).unwrap_or(i64::MAX);
        self.previous = PreviousSeal { seq: seal.seq, at: seal.at, hash: seal.hash.clone() };
    }

    fn check_transfer(&mut self, transfer: &BookRow, expected_seq: i64, seal: &StoredSeal) {
        let place = format_args!("transfer {}", transfer.seq);
        self.transfers += 1;
        if transfer.seq != expected_seq {
            let detail = format!("transfer {expected_seq} is expected here");
            self.add_fault(CheckKind::Gap, place, &detail);
        }
        if transfer.at != seal.at {
            self.add_fault(CheckKind::Chain, place, "its time differs from that of its seal");
        }
        let [debit, credit] = [transfer.debit, transfer.credit].map(|id| self.currencies.get(&id));
        if debit.is_none() || debit != credit {
            self.add_fault(
                CheckKind::Shape,
                place,
                "its accounts do not exist, or have different currencies",
            );
        }
        let sides = [
            ("debit", transfer.debit, -i128::from(transfer.amount), transfer.debit_balance),
            ("credit", transfer.credit, i128::from(transfer.amount), transfer.credit_balance),
        ];
        for (side, account, change, balance) in sides {
            let before = self.balances.get(&account).copied().unwrap_or_default();
            let expected = i128::from(before) + change;
            if expected != i128::from(balance) {
                let currency = self.currencies.get(&account).map_or("?", |(code, _)| code);
                *self.imbalances.entry(currency.to_owned()).or_default() +=
                    i128::from(balance) - expected;
                self.add_fault(
                    CheckKind::RunningBalance,
                    place,
                    &format!(
                        "account {account} ({side}) has {balance} after it instead of {expected}"
                    ),
                );
            }
            let is_foreign =
                book_of_account(AccountId(account)).is_some_and(|book| book != self.book);
            let class = AccountId(account).class();
            if !is_foreign && !class.is_some_and(|class| class.allows(Minor(balance))) {
                self.add_fault(
                    CheckKind::Floor,
                    place,
                    &format!(
                        "account {account} ({side}) has {balance}, which its class does not allow"
                    ),
                );
            }
            // Continues with the expected balance, so that one wrong row does not cause a fault in every later row of
            // the account.
            self.balances.insert(account, i64::try_from(expected).unwrap_or(balance));
        }
    }

    fn check_anchors(&mut self, seal: &StoredSeal) {
        let reached: Vec<Anchor> =
            self.anchors.extract_if(.., |anchor| anchor.seq == seal.seq).collect();
        if reached.iter().any(|anchor| seal.hash != anchor.hash) {
            self.add_fault(
                CheckKind::Anchor,
                format_args!("seal {}", seal.seq),
                "its hash differs from the anchor's: rows before it were rewritten",
            );
        }
    }
}

/// Splits off the rows up to and including `seq`, which belong to the batch that ends at `seq`.
fn split_up_to<'a, T>(rows: &mut &'a [T], seq: i64, seq_of: impl Fn(&T) -> i64) -> &'a [T] {
    let (taken, rest) = rows.split_at(rows.partition_point(|row| seq_of(row) <= seq));
    *rows = rest;
    taken
}

fn attributes_of(transfer: &BookRow) -> TransferAttributes<'_> {
    let BookRow { trace_id, linked, metadata, home, .. } = transfer;
    let (trace_id, linked, home) = (*trace_id, *linked, *home);
    TransferAttributes { trace_id, linked, metadata: metadata.as_deref(), home }
}

/// Computes the hash of a seal in the same way as the SQL function `ledger.post`.
fn seal_hash(previous: &PreviousSeal, seal: &StoredSeal, content: [u8; 32]) -> Vec<u8> {
    let since = (previous.at - EPOCH).whole_microseconds();
    let microseconds = i64::try_from(since).unwrap_or(i64::MAX);
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(&previous.hash);
    hash.update(microseconds.to_be_bytes());
    hash.update(seal.seq.to_be_bytes());
    hash.update(seal.batch_id.as_bytes());
    hash.update(content);
    hash.finalize().to_vec()
}
