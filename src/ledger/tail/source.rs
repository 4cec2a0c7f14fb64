//! What can be followed: the transfers of a book, and its events.

use std::future::Future;

use sqlx::{PgConnection, PgPool};

use super::event::Event;
use super::sql;
use super::wake::Channel;
use crate::ledger::read::{self, Line};

/// A book, and where it can be read.
#[derive(Clone)]
pub struct Followed {
    pub pool: PgPool,
    pub book: i32,
}

/// A place in a source: everything up to it is past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Of a transfer; of an event, the transaction that wrote it.
    pub seq: i64,
    /// Of an event, within its transaction.
    pub event: i64,
}

impl Position {
    /// Behind this transfer.
    pub const fn behind(seq: i64) -> Self {
        Self { seq, event: 0 }
    }
}

/// What stands between two positions.
#[derive(Debug, Clone)]
pub struct Segment<T> {
    pub after: Position,
    pub until: Position,
    pub items: Vec<T>,
}

/// Something that grows in one order.
pub trait Source: Send + Sync + 'static {
    type Item: Clone + Send + Sync + 'static;

    /// Which notification tells that it has grown.
    const CHANNEL: Channel;

    /// What follows, up to about `max` items; never a part of what belongs together.
    fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> impl Future<Output = sqlx::Result<Segment<Self::Item>>> + Send;

    /// Where it ends now.
    fn end(db: &mut PgConnection, book: i32)
    -> impl Future<Output = sqlx::Result<Position>> + Send;

    /// How much is behind this position: the lag of a reader.
    fn behind(
        db: &mut PgConnection,
        book: i32,
        position: Position,
    ) -> impl Future<Output = sqlx::Result<i64>> + Send;

    fn position_of(item: &Self::Item) -> Position;

    /// Whether a read ended because it had enough, so that the next one need not wait.
    fn is_full(items: &[Self::Item], max: i64) -> bool {
        i64::try_from(items.len()).is_ok_and(|count| count >= max)
    }
}

/// Every transfer of the book.
pub struct Transfers;

impl Source for Transfers {
    type Item = Line;

    const CHANNEL: Channel = Channel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<Line>> {
        let mut items = read::lines(db, book, after.seq, i64::MAX, max).await?;
        // The legs of one transfer belong together.
        if let Some(last) = items.last().filter(|last| last.leg + 1 < last.legs) {
            let end = last.seq + i64::from(last.legs - last.leg) - 1;
            items.extend(read::lines(db, book, last.seq, end, i64::MAX).await?);
        }
        let until = items.last().map_or(after, Self::position_of);
        Ok(Segment { after, until, items })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        sql::head(db, book).await.map(Position::behind)
    }

    async fn behind(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Ok(sql::head(db, book).await? - position.seq)
    }

    fn position_of(line: &Line) -> Position {
        Position::behind(line.seq)
    }
}

/// What happened that is no money: a game was added, an order moved on.
pub struct Events;

impl Source for Events {
    type Item = Event;

    const CHANNEL: Channel = Channel::Event;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<Event>> {
        let items = sql::events(db, book, after, max).await?;
        let until = items.last().map_or(after, Self::position_of);
        Ok(Segment { after, until, items })
    }

    async fn end(db: &mut PgConnection, _: i32) -> sqlx::Result<Position> {
        // A transaction that still runs comes later, whatever it has written already.
        Ok(Position { seq: sql::horizon(db).await? - 1, event: i64::MAX })
    }

    async fn behind(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        sql::events_behind(db, book, position).await
    }

    fn position_of(event: &Event) -> Position {
        event.position
    }
}
