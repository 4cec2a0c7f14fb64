//! Events of the ledger that move no money, such as the announcement of a new game. An event is appended in the
//! transaction that causes it; all readers see the events in the same order. The events of all books are stored with
//! the first book.

use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::source::{BookEvent, Position, Segment, Source};
use super::sql;
use super::wake::NotifyChannel;
use crate::ledger::book::FIRST_BOOK;

/// An event that a transaction appends.
#[derive(Debug)]
pub struct EventToAppend<'a> {
    pub topic: &'a str,
    pub body: &'a RawValue,
    pub trace_id: Option<Uuid>,
}

/// Appends an event, within the transaction that causes it.
pub async fn append_event(
    db: &mut PgConnection,
    topic: &str,
    body: &RawValue,
    trace_id: Option<Uuid>,
) -> sqlx::Result<()> {
    append_events(db, &[EventToAppend { topic, body, trace_id }]).await
}

/// Appends events in their order, within the transaction that causes them.
pub async fn append_events(
    db: &mut PgConnection,
    events: &[EventToAppend<'_>],
) -> sqlx::Result<()> {
    sql::append_events(db, FIRST_BOOK, events).await
}

/// Reads the events of a topic between two positions: after the first position of `bounds`, up to and including the
/// second.
pub async fn events_of_topic(
    db: &mut PgConnection,
    topic: &str,
    bounds: (Position, Position),
    limit: i64,
) -> sqlx::Result<Vec<BookEvent>> {
    sql::events_of_topic(db, FIRST_BOOK, topic, bounds, limit).await
}

/// Deletes events that are older than `before`, oldest first, up to about `max`; returns the number of deleted events.
pub async fn prune_events(
    db: &mut PgConnection,
    before: OffsetDateTime,
    max: i32,
) -> sqlx::Result<i64> {
    sql::prune_events(db, FIRST_BOOK, before, max).await
}

/// Source of events, such as the announcement of a new game or a change to an order's state.
pub struct Events;

impl Source for Events {
    type Item = BookEvent;

    const CHANNEL: NotifyChannel = NotifyChannel::Event;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<BookEvent>> {
        let items = sql::events(db, book, after, max).await?;
        Ok(Segment::with_items(after, items, max, Self::position_of))
    }

    async fn end(db: &mut PgConnection, _: i32) -> sqlx::Result<Position> {
        // All events of a transaction that is still running come after this position, even those that it has already
        // written.
        Ok(Position { seq: sql::horizon(db).await? - 1, event: i64::MAX })
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        sql::event_lag(db, book, position).await
    }

    fn position_of(event: &BookEvent) -> Position {
        event.position
    }
}
