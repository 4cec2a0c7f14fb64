//! Types for the sources (transfers and events) that readers of the ledger follow: positions, segments, and the
//! [`Source`] trait.

use std::future::Future;

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::wake::NotifyChannel;

/// A book, and the connection pool through which it is read.
#[derive(Clone)]
pub(super) struct BookHandle {
    pub pool: PgPool,
    pub book: i32,
}

/// A position in a source, after the last item that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Seq of a transfer; for an event, the id of the transaction that wrote it.
    pub seq: i64,
    /// Id of an event within its transaction.
    pub event: i64,
}

impl Position {
    /// Returns the position after the transfer with this seq.
    pub const fn after(seq: i64) -> Self {
        Self { seq, event: 0 }
    }
}

/// The items of a source between two positions.
#[derive(Debug, Clone)]
pub struct Segment<T> {
    pub after: Position,
    pub until: Position,
    pub items: Vec<T>,
    /// Whether the read stopped at its limit, so that more items may follow.
    pub is_full: bool,
}

impl<T> Segment<T> {
    /// Creates a segment from the items that a read with the limit `max` returned. The segment ends at its last item.
    pub(super) fn with_items(
        after: Position,
        items: Vec<T>,
        max: i64,
        position_of: impl Fn(&T) -> Position,
    ) -> Self {
        let until = items.last().map_or(after, position_of);
        let is_full = i64::try_from(items.len()).is_ok_and(|count| count >= max);
        Self { after, until, items, is_full }
    }
}

/// A sequence of items that grows at its end, such as the transfers of a book.
pub trait Source: Send + Sync + 'static {
    type Item: Clone + Send + Sync + 'static;

    /// Channel whose notifications announce new items.
    const CHANNEL: NotifyChannel;

    /// Reads the items after a position, up to about `max`. Items that belong together, such as the legs of a transfer,
    /// are never split between two reads.
    fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> impl Future<Output = sqlx::Result<Segment<Self::Item>>> + Send;

    /// Returns the current end of the source.
    fn end(db: &mut PgConnection, book: i32)
    -> impl Future<Output = sqlx::Result<Position>> + Send;

    /// Returns the lag of a reader at this position: the number of items after it.
    fn lag(
        db: &mut PgConnection,
        book: i32,
        position: Position,
    ) -> impl Future<Output = sqlx::Result<i64>> + Send;

    fn position_of(item: &Self::Item) -> Position;
}

/// An event that moves no money, such as the announcement of a new game.
#[derive(Debug, Clone)]
pub struct BookEvent {
    pub position: Position,
    pub at: OffsetDateTime,
    /// Trace of the request that caused the event.
    pub trace_id: Option<Uuid>,
    pub topic: String,
    /// Payload of the event: JSON, byte for byte as it was appended.
    pub body: String,
}
