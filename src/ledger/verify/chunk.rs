//! A stretch of the book that ends with a seal, with everything that its hashes cover.

use sqlx::PgConnection;

use super::sql::{self, Born, KeyedPosting, Seal};
use crate::ledger::read::{self, Line};

/// Most transfers that are in memory at once, but for a posting that is larger by itself.
const TRANSFERS_MAX: i64 = 20_000;

#[derive(Debug, Clone)]
pub struct Chunk {
    pub seals: Vec<Seal>,
    pub transfers: Vec<Line>,
    pub postings: Vec<KeyedPosting>,
    pub accounts: Vec<Born>,
    /// It ends because it is large enough; there is more.
    pub is_full: bool,
}

impl Chunk {
    /// Reads what follows `after`, up to `end`; `None` when there is nothing.
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
            transfers: read::lines(db, book, after, last, i64::MAX).await?,
            postings: sql::postings(db, book, after, last).await?,
            accounts: sql::accounts(db, book, after, last).await?,
            seals,
            is_full,
        }))
    }

    /// The seq of its last seal.
    pub fn end(&self) -> i64 {
        self.seals.last().map_or(0, |seal| seal.seq)
    }
}
