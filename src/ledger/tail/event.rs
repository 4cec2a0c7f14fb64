//! Events that are no money: written in the transaction of what they tell of, read in one order.

use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::source::Position;
use super::sql;

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    pub position: Position,
    pub at: OffsetDateTime,
    /// Of the request that caused it.
    pub trace_id: Option<Uuid>,
    pub topic: String,
    /// JSON, as it was given.
    pub body: String,
}

/// Writes an event, within the transaction of what it tells of.
pub async fn append(
    db: &mut PgConnection,
    book: i32,
    topic: &str,
    body: &RawValue,
    trace_id: Option<Uuid>,
) -> sqlx::Result<()> {
    sql::append(db, book, topic, body.get(), trace_id).await
}
