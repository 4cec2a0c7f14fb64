//! The statements of the book's readers.

use sqlx::PgConnection;
use uuid::Uuid;

use super::event::Event;
use super::source::Position;

/// The last seq of the book.
pub(super) async fn head(db: &mut PgConnection, book: i32) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        "select seq from ledger.seal where book = $1 order by seq desc limit 1",
        book
    )
    .fetch_one(db)
    .await
}

/// Makes the cursor of a reader that has none.
pub(super) async fn create_cursor(
    db: &mut PgConnection,
    book: i32,
    name: &str,
    position: Position,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into ledger.cursor (book, name, seq, event) values ($1, $2, $3, $4)
        on conflict do nothing",
        book,
        name,
        position.seq,
        position.event,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Where a reader has come to, whoever runs it.
pub(super) async fn find_cursor(
    db: &mut PgConnection,
    book: i32,
    name: &str,
) -> sqlx::Result<Option<Position>> {
    sqlx::query_as!(
        Position,
        "select seq, event from ledger.cursor where book = $1 and name = $2",
        book,
        name,
    )
    .fetch_optional(db)
    .await
}

/// Another process takes over when the one that moved a cursor has not done so for this long.
const SILENT_SECONDS: f64 = 3.0;

/// The same, and nobody else moves it until the transaction ends; nothing when somebody else has it.
pub(super) async fn lock_cursor(
    db: &mut PgConnection,
    book: i32,
    name: &str,
    holder: Uuid,
) -> sqlx::Result<Option<Position>> {
    sqlx::query_as!(
        Position,
        "select seq, event from ledger.cursor
        where book = $1 and name = $2
            and (holder is null or holder = $3 or at < now() - make_interval(secs => $4))
        for update skip locked",
        book,
        name,
        holder,
        SILENT_SECONDS,
    )
    .fetch_optional(db)
    .await
}

pub(super) async fn move_cursor(
    db: &mut PgConnection,
    book: i32,
    name: &str,
    position: Position,
    holder: Uuid,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update ledger.cursor set seq = $3, event = $4, at = now(), holder = $5
        where book = $1 and name = $2",
        book,
        name,
        position.seq,
        position.event,
        holder,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Leaves a cursor to whoever comes next.
pub(super) async fn release_cursor(
    db: &mut PgConnection,
    book: i32,
    name: &str,
    holder: Uuid,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update ledger.cursor set holder = null where book = $1 and name = $2 and holder = $3",
        book,
        name,
        holder,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn append(
    db: &mut PgConnection,
    book: i32,
    topic: &str,
    body: &str,
    trace_id: Option<Uuid>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        with appended as (
            insert into ledger.event (book, topic, body, trace_id)
            values ($1, $2, $3::text::json, $4)
            returning book
        )
        select pg_notify('event', book::text) as "notified" from appended"#,
        book,
        topic,
        body,
        trace_id,
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// The events behind a position that no running transaction can get in front of.
pub(super) async fn events(
    db: &mut PgConnection,
    book: i32,
    after: Position,
    max: i64,
) -> sqlx::Result<Vec<Event>> {
    let rows = sqlx::query!(
        r#"
        select xid, id, at, trace_id, topic, body::text as "body!"
        from ledger.event
        where book = $1 and (xid, id) > ($2, $3) and xid < ledger.event_horizon()
        order by xid, id
        limit $4"#,
        book,
        after.seq,
        after.event,
        max,
    )
    .fetch_all(db)
    .await?;
    let events = rows.into_iter().map(|row| Event {
        position: Position { seq: row.xid, event: row.id },
        at: row.at,
        trace_id: row.trace_id,
        topic: row.topic,
        body: row.body,
    });
    Ok(events.collect())
}

/// Most events that are counted as a lag: beyond, the exact number says no more.
const LAG_MAX: i64 = 10_000;

pub(super) async fn events_behind(
    db: &mut PgConnection,
    book: i32,
    position: Position,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from (
            select from ledger.event where book = $1 and (xid, id) > ($2, $3) limit $4
        ) behind"#,
        book,
        position.seq,
        position.event,
        LAG_MAX,
    )
    .fetch_one(db)
    .await
}

/// Every transaction below has ended.
pub(super) async fn horizon(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select ledger.event_horizon() as "horizon!""#).fetch_one(db).await
}
