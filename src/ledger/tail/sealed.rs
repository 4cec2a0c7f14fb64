//! The transfers of a book, each with the id of its batch. The positions that clients receive contain the first digits
//! of this id. If a failover loses a batch, these digits reveal that a position in the lost batch is invalid.

use sqlx::PgConnection;

use super::source::{Position, Segment, Source};
use super::sql;
use super::transfers::Transfers;
use super::wake::NotifyChannel;
use crate::ledger::account::AccountId;
use crate::ledger::read::{self, BookRow};

/// A row of the transfers table, with the first digits of its batch's id.
#[derive(Debug, Clone)]
pub struct SealedRow {
    pub row: BookRow,
    /// First 12 hexadecimal digits of the batch's id, which are also part of the positions that clients receive.
    pub batch: String,
}

/// Source of the transfers of a book, each with the first digits of its batch's id.
pub struct SealedTransfers;

impl Source for SealedTransfers {
    type Item = SealedRow;

    const CHANNEL: NotifyChannel = NotifyChannel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<SealedRow>> {
        let Segment { after, until, items, is_full } =
            Transfers::read(db, book, after, max).await?;
        Ok(Segment { after, until, items: with_batches(db, book, items).await?, is_full })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        Transfers::end(db, book).await
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Transfers::lag(db, book, position).await
    }

    fn position_of(item: &SealedRow) -> Position {
        Transfers::position_of(&item.row)
    }
}

/// Reads the transfers of a book that touch one of these accounts, with seqs after `after`, up to and including `last`.
pub async fn rows_of_accounts(
    db: &mut PgConnection,
    book: i32,
    accounts: &[AccountId],
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<SealedRow>> {
    let rows = read::rows_of_accounts(db, book, accounts, after, last, limit).await?;
    with_batches(db, book, rows).await
}

/// Reads the transfers of a book with seqs after `after`, up to and including `last`.
pub async fn sealed_rows(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<SealedRow>> {
    let rows = read::rows(db, book, after, last, limit).await?;
    with_batches(db, book, rows).await
}

/// Adds the first digits of the batch's id to each row. The rows must be in the order of the book.
async fn with_batches(
    db: &mut PgConnection,
    book: i32,
    rows: Vec<BookRow>,
) -> sqlx::Result<Vec<SealedRow>> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(Vec::new()) };
    // Each batch has at least one row, so consecutive rows have at most as many batches as rows.
    let are_neighbors = i64::try_from(seqs.len()).is_ok_and(|count| last - first < count);
    let seals = if are_neighbors {
        sql::seals(db, book, first - 1, i64::try_from(seqs.len()).unwrap_or(i64::MAX)).await?
    } else {
        sql::seals_of(db, book, &seqs).await?
    };
    let mut seals = seals.into_iter().peekable();
    let sealed = rows.into_iter().map(|row| {
        while seals.peek().is_some_and(|seal| seal.seq < row.seq) {
            seals.next();
        }
        let batch = seals.peek().map(|seal| seal.batch.clone()).unwrap_or_default();
        SealedRow { row, batch }
    });
    Ok(sealed.collect())
}
