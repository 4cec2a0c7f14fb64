//! The transfers of a book, as a source for readers (tasks that follow the ledger).

use sqlx::PgConnection;

use super::source::{Position, Segment, Source};
use super::sql;
use super::wake::NotifyChannel;
use crate::ledger::read::{self, BookRow};

/// Source of every transfer of the book.
pub struct Transfers;

impl Source for Transfers {
    type Item = BookRow;

    const CHANNEL: NotifyChannel = NotifyChannel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<BookRow>> {
        let mut items = read::rows(db, book, after.seq, i64::MAX, max).await?;
        // The legs of a transfer stay together. If the transfer belongs to another book, this book may have copies of
        // only some legs.
        if let Some(last) = items.last().filter(|last| last.leg + 1 < last.legs) {
            let (transfer, after) = (last.transfer_id(), last.seq);
            let end = after + i64::from(last.legs - last.leg) - 1;
            let more = read::rows(db, book, after, end, i64::MAX).await?;
            items.extend(more.into_iter().take_while(|row| row.transfer_id() == transfer));
        }
        Ok(Segment::with_items(after, items, max, Self::position_of))
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        sql::head(db, book).await.map(Position::after)
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Ok(sql::head(db, book).await? - position.seq)
    }

    fn position_of(row: &BookRow) -> Position {
        Position::after(row.seq)
    }
}
