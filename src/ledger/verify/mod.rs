//! `revwallet verify`: reads the whole book from its first transfer and holds every line against what must be.
//!
//! | checked | how |
//! |---|---|
//! | no gap | each seq is one more than the one before |
//! | running balances | both balances of each transfer, against the sums so far |
//! | floors and ceilings | by the class of each account |
//! | currencies | both sides of a transfer are accounts of one currency |
//! | conservation | the balances of each currency add up to zero |
//! | the chain | each seal stands on the one before; its hash, recomputed from the rows, is the one stored |
//! | an anchor | a hash that was noted earlier is still the hash of that seal |
//!
//! It reads a few thousand transfers at a time, so its memory is that of the balances: some 50 bytes an account.

mod check;
mod chunk;
mod fault;
mod sql;

use std::fmt;

use sqlx::{Connection, PgConnection};

use crate::db::{Database, migrations};
use crate::error::{Error, Result};

pub use self::check::Checker;
pub use self::chunk::Chunk;
pub use self::fault::{Check, Fault};

/// Most faults that are told: the first is the one to look at, the others follow from it.
pub(super) const FAULTS_MAX: usize = 20;

/// A seal whose hash was noted: `SEQ:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    pub seq: i64,
    pub hash: [u8; 32],
}

impl std::str::FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write SEQ:HASH, as the log and the last report have it".to_owned();
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

/// What was read and what was found.
#[derive(Debug)]
pub struct VerifyReport {
    pub transfers: i64,
    pub seals: i64,
    pub postings: i64,
    pub accounts: usize,
    /// The head of the book: note it, and a later run proves that nothing before it was rewritten.
    pub head: Anchor,
    pub faults: Vec<Fault>,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transfers, seals, postings, accounts, head, faults } = self;
        writeln!(
            formatter,
            "{transfers} transfers in {seals} seals, {postings} with a key, {accounts} accounts"
        )?;
        writeln!(formatter, "head {head}")?;
        match faults.first() {
            None => write!(formatter, "all is well"),
            Some(first) => {
                write!(formatter, "first fault: {first}")?;
                faults[1..].iter().try_for_each(|fault| write!(formatter, "\n  then: {fault}"))
            }
        }
    }
}

/// Verifies the book over a connection of its own, after checking that the schema is this program's.
pub async fn run_on(
    db: &Database,
    anchor: Option<&Anchor>,
    progress: impl FnMut(i64, i64),
) -> anyhow::Result<VerifyReport> {
    let mut connection = PgConnection::connect_with(db.options()).await?;
    migrations::check(&mut connection).await?;
    run(&mut connection, 1, anchor, progress).await.map_err(Error::into_cause)
}

/// Reads the book to where it ended when the run began; `progress` is told the seq that is reached, and the last one.
pub async fn run(
    db: &mut PgConnection,
    book: i32,
    anchor: Option<&Anchor>,
    mut progress: impl FnMut(i64, i64),
) -> Result<VerifyReport> {
    let (end, _) = super::read::head(db, book).await?;
    let first = sql::first_seal(db, book).await?;
    let mut checker = Checker::new(book, first, anchor.cloned());
    let mut reached = 0;
    while let Some(chunk) = Chunk::read(db, book, reached, end).await? {
        checker.chunk(&chunk);
        reached = chunk.end();
        progress(reached, end);
    }
    Ok(checker.finish(end))
}
