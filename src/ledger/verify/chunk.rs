//! A chunk of a book: consecutive whole batches, with all rows that the hashes of the batches cover.

use sqlx::PgConnection;

use super::sql::{self, KeyedPosting, StoredAccount, StoredSeal};
use crate::ledger::read::{self, BookRow};

/// Maximum number of transfers in a chunk, unless its first batch alone has more.
const TRANSFERS_MAX: i64 = 20_000;

#[derive(Debug, Clone)]
pub struct BookChunk {
    pub seals: Vec<StoredSeal>,
    pub transfers: Vec<BookRow>,
    pub postings: Vec<KeyedPosting>,
    pub accounts: Vec<StoredAccount>,
    /// Whether the chunk ends because it reached a limit, so that more batches may follow.
    pub is_full: bool,
}

impl BookChunk {
    /// Reads the next chunk: batches after the seq `after` that end at or before `end`; `None` if there are none.
    pub async fn read(
        db: &mut PgConnection,
        book: i32,
        after: i64,
        end: i64,
    ) -> sqlx::Result<Option<Self>> {
        let mut seals = sql::seals(db, book, after, end).await?;
        let fits = seals.iter().take_while(|seal| seal.seq - after <= TRANSFERS_MAX).count();
        let is_full = fits < seals.len() || sql::is_full(&seals);
        seals.truncate(fits.max(1));
        let Some(last) = seals.last().map(|seal| seal.seq) else { return Ok(None) };
        Ok(Some(Self {
            transfers: read::rows(db, book, after, last, i64::MAX).await?,
            postings: sql::postings(db, after, last).await?,
            accounts: sql::accounts(db, book, after, last).await?,
            seals,
            is_full,
        }))
    }

    /// The seq of the chunk's last seal.
    pub fn end(&self) -> i64 {
        self.seals.last().map_or(0, |seal| seal.seq)
    }
}
