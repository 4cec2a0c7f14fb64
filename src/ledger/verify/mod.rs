//! `revwallet verify`: reads each book from its first transfer on, and checks every row.
//!
//! | check | rule |
//! |---|---|
//! | gaps | each seq is the successor of the previous seq |
//! | running balances | both balances after a transfer equal the previous balances of its accounts, changed by its amount |
//! | floors and ceilings | each balance is within the limits of its account's class |
//! | currencies | both accounts of a transfer have the same currency |
//! | conservation | the balances of each currency add up to zero |
//! | seal chain | each batch's seal names the previous seal; its hash equals the hash recomputed from the rows |
//! | anchor | the seal of an anchor still has the anchor's hash |
//! | copies | a leg that touches several books has matching rows in all of them |
//!
//! If the beginning of a book is archived, the command only checks that the archived seals form a chain. It reads the
//! balances at the end of the archive from the rows that the book still has, and includes them in the check of
//! conservation. To check the archived transfers as well, restore them first.
//!
//! The book is read in chunks, so the command needs memory mainly for the balances: about 50 bytes per account.

mod check;
mod chunk;
mod copies;
mod fault;
mod sql;

use std::fmt;

use serde::{Serialize, Serializer};
use sqlx::{Connection, PgConnection};

use crate::db::{Database, migrations};
use crate::error::{Error, Result};
use crate::ledger::book::{FIRST_BOOK, book_of, first_seal};

pub use self::check::BookChecker;
pub use self::chunk::BookChunk;
pub use self::fault::{BookFault, CheckKind};

/// Maximum number of faults in a report: later faults usually follow from the first fault.
pub(super) const FAULTS_MAX: usize = 20;

/// Seq and hash of a seal (the row that ends a batch), kept outside the database as `SEQ:HASH`, to prove later that no
/// row before it was rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    pub seq: i64,
    pub hash: [u8; 32],
}

impl std::str::FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write SEQ:HASH, as in the log or in an earlier report".to_owned();
        let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
        if hash.len() != 64 || !hash.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hash[2 * place..2 * place + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self { seq: seq.parse().map_err(|_| wrong())?, hash: bytes })
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.seq)?;
        self.hash.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl Serialize for Anchor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Result of a verification.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    /// Last archived seq, if a part of the book is archived. For the transfers up to this seq, only the resulting
    /// balances and the chain of seals were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived_until: Option<i64>,
    pub transfers: i64,
    pub seals: i64,
    pub postings: i64,
    pub accounts: usize,
    /// Last seal of the book. A later run with this seal as its anchor proves that no row before it was rewritten.
    pub head: Anchor,
    /// Last archived seq of each other book that has an archive. For the first book, see `archived_until`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_archives: Vec<i64>,
    /// Last seals of the books after the first book.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_heads: Vec<Anchor>,
    pub faults: Vec<BookFault>,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { archived_until, transfers, seals, postings, accounts, head, faults, .. } = self;
        for seq in archived_until.iter().chain(&self.other_archives) {
            writeln!(formatter, "the transfers up to {seq} are archived and were not read")?;
        }
        writeln!(
            formatter,
            "{transfers} transfers in {seals} seals, {postings} with a key, {accounts} accounts"
        )?;
        for head in std::iter::once(head).chain(&self.other_heads) {
            writeln!(formatter, "head {head}")?;
        }
        match faults.first() {
            None => write!(formatter, "no faults found"),
            Some(first) => {
                write!(formatter, "first fault: {first}")?;
                faults[1..]
                    .iter()
                    .try_for_each(|fault| write!(formatter, "\n  next fault: {fault}"))
            }
        }
    }
}

/// Opens a connection, checks that the database schema has the version that this program needs, and verifies all books.
/// The anchors may be from different books.
pub async fn run_on(
    db: &Database,
    anchors: Vec<Anchor>,
    progress: impl FnMut(i64, i64),
) -> anyhow::Result<VerifyReport> {
    let mut connection = PgConnection::connect_with(db.options()).await?;
    migrations::require_current(&mut connection).await?;
    run_all(&mut connection, anchors, progress).await.map_err(Error::into_cause)
}

/// Verifies all books, and merges their reports into one report.
pub async fn run_all(
    db: &mut PgConnection,
    mut anchors: Vec<Anchor>,
    mut progress: impl FnMut(i64, i64),
) -> Result<VerifyReport> {
    let books = sql::books(db).await?;
    let mut anchors_of =
        |book| anchors.extract_if(.., |anchor| book_of(anchor.seq) == book).collect::<Vec<_>>();
    let others = books.into_iter().filter(|book| *book != FIRST_BOOK);
    let others: Vec<_> = others.map(|book| (book, anchors_of(book))).collect();
    // The check of the first book also gets the anchors of books that do not exist, and reports them as missing.
    let mut report = run(db, FIRST_BOOK, anchors, &mut progress).await?;
    for (book, anchors) in others {
        let other = run(db, book, anchors, &mut progress).await?;
        report.transfers += other.transfers;
        report.seals += other.seals;
        report.postings += other.postings;
        report.accounts += other.accounts;
        report.other_heads.push(other.head);
        report.other_archives.extend(other.archived_until);
        report.faults.extend(other.faults);
    }
    Ok(report)
}

/// Verifies a book up to its last seal at the start of the verification. `progress` receives the number of transfers
/// checked so far, and the total number of transfers.
pub async fn run(
    db: &mut PgConnection,
    book: i32,
    anchors: Vec<Anchor>,
    mut progress: impl FnMut(i64, i64),
) -> Result<VerifyReport> {
    let end = super::read::head(db, book).await?;
    let first = sql::first_seal(db, book).await?;
    let mut checker = BookChecker::new(book, first, anchors);
    let archived = super::read::archived_until(db, book).await?;
    if let Some(archived) = archived {
        checker.pass_archive(db, archived.seq).await?;
    }
    let mut reached = checker.checked_seq();
    while let Some(chunk) = BookChunk::read(db, book, reached, end).await? {
        let until = super::read::archived_until(db, book).await?;
        if until.map(|until| until.seq) > archived.map(|archived| archived.seq) {
            let cause = "archiving began during the verification; run `revwallet verify` again";
            return Err(Error::Internal(anyhow::anyhow!(cause)));
        }
        checker.check_chunk(&chunk);
        checker.check_copies(db, &chunk).await?;
        reached = chunk.end();
        let start = first_seal(book);
        progress(reached - start, end - start);
    }
    Ok(VerifyReport {
        archived_until: archived.map(|archived| archived.seq),
        ..checker.finish(end)
    })
}
