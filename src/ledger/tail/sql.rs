//! SQL statements of readers, the tasks that follow the ledger: stored positions (cursors), batches and events.

use sqlx::PgConnection;
use uuid::Uuid;

use super::event::EventToAppend;
use super::source::{BookEvent, Position};

/// Returns the last seq of the book.
pub(super) async fn head(db: &mut PgConnection, book: i32) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        "select seq from ledger.seal where book = $1 order by seq desc limit 1",
        book
    )
    .fetch_one(db)
    .await
}

/// The end of a book: its last seq, and the position of its last event.
pub(super) type BookEnd = (Option<i64>, Option<Position>);

/// Returns the current ends of all books up to the book `last`.
pub(super) async fn ends(db: &mut PgConnection, last: i32) -> sqlx::Result<Vec<BookEnd>> {
    let rows = sqlx::query!(
        r#"
        select s.seq as "sealed?", e.xid as "xid?", e.id as "id?"
        from generate_series(1, $1::int) b (book)
        left join lateral ledger.last_seal(b.book) s on true
        left join lateral (
            select xid, id from ledger.event where book = b.book order by xid desc, id desc limit 1
        ) e on true
        order by b.book"#,
        last,
    )
    .fetch_all(db)
    .await?;
    let end = |xid: Option<i64>, id| xid.zip(id).map(|(seq, event)| Position { seq, event });
    Ok(rows.into_iter().map(|row| (row.sealed, end(row.xid, row.id))).collect())
}

/// The last seq of a batch, and the first digits of the batch's id.
pub(super) struct SealedBatch {
    pub seq: i64,
    pub batch: String,
}

/// Reads the batches that end after a seq, in the order of the book.
pub(super) async fn seals(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<SealedBatch>> {
    sqlx::query_as!(
        SealedBatch,
        r#"
        select seq, left(replace(batch_id::text, '-', ''), 12) as "batch!"
        from ledger.seal
        where book = $1 and seq > $2
        order by seq
        limit $3"#,
        book,
        after,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Reads the batch of each of these transfers, in the same order.
pub(super) async fn seals_of(
    db: &mut PgConnection,
    book: i32,
    seqs: &[i64],
) -> sqlx::Result<Vec<SealedBatch>> {
    sqlx::query_as!(
        SealedBatch,
        r#"
        select s.seq as "seq!", left(replace(s.batch_id::text, '-', ''), 12) as "batch!"
        from unnest($2::bigint[]) with ordinality t (seq, n)
        cross join lateral (
            select seq, batch_id from ledger.seal
            where book = $1 and seq >= t.seq
            order by seq
            limit 1
        ) s
        order by t.n"#,
        book,
        seqs,
    )
    .fetch_all(db)
    .await
}

/// Facts that determine whether a reader can continue from a position.
pub struct PositionFacts {
    /// Newest position in the ledger when the facts were read.
    pub now: String,
    /// First digits of the id of the batch that contains the transfer at the position; `None` if the book does not
    /// contain this transfer.
    pub batch: Option<String>,
    /// Whether the first batch after the position is archived, or older than the retention period.
    pub is_expired: bool,
    /// Id of the transaction up to which events were deleted.
    pub pruned_xid: i64,
}

/// Reads the facts that determine whether a reader can continue after this transfer.
pub(super) async fn position_facts(
    db: &mut PgConnection,
    book: i32,
    seq: i64,
    retention_seconds: f64,
) -> sqlx::Result<PositionFacts> {
    sqlx::query_as!(
        PositionFacts,
        r#"
        select
            ledger.position() as "now!",
            (select left(replace(batch_id::text, '-', ''), 12) from ledger.first_seal($1, $2)) as batch,
            coalesce((
                select at < now() - make_interval(secs => $3) from ledger.first_seal($1, $2 + 1)
            ), false) or exists (
                select from ledger.archive where book = $1 and until_seq > $2
            ) as "is_expired!",
            coalesce((select xid from ledger.event_pruned where book = $1), 0) as "pruned_xid!""#,
        book,
        seq,
        retention_seconds,
    )
    .fetch_one(db)
    .await
}

/// Deletes old events; returns the number of deleted events.
pub(super) async fn prune_events(
    db: &mut PgConnection,
    book: i32,
    before: time::OffsetDateTime,
    max: i32,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select ledger.prune_events($1, $2, $3) as "deleted!""#,
        book,
        before,
        max
    )
    .fetch_one(db)
    .await
}

/// Creates the stored position (cursor) of a reader, unless it exists. The reader begins with the first transfer that
/// is not archived, or with the first event.
pub(super) async fn create_cursor(
    db: &mut PgConnection,
    book: i32,
    name: &str,
    channel: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into ledger.cursor (book, name, channel, seq)
        select $1, $2, $3, case when $3::text = 'book' then coalesce(
            (select max(until_seq) from ledger.archive where book = $1), ($1::int - 1)::bigint << 44) else 0 end
        on conflict do nothing",
        book,
        name,
        channel,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Finds the stored position of a reader, even if another process runs the reader.
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

/// Lease of a cursor in seconds. Another process may take over a cursor that was not advanced for this long.
const LEASE_SECONDS: f64 = 3.0;

/// Locks the cursor until the transaction ends, and returns its position; `None` if another process holds the cursor,
/// or the cursor does not exist.
///
/// Also makes the later statements of the transaction use custom query plans. A generic plan that was made while the
/// book was small would scan the book from its end, even after the book has grown.
pub(super) async fn lock_cursor(
    db: &mut PgConnection,
    book: i32,
    name: &str,
    holder: Uuid,
) -> sqlx::Result<Option<Position>> {
    let row = sqlx::query!(
        "select seq, event, set_config('plan_cache_mode', 'force_custom_plan', true) from ledger.cursor
        where book = $1 and name = $2
            and (holder is null or holder = $3 or at < now() - make_interval(secs => $4))
        for update skip locked",
        book,
        name,
        holder,
        LEASE_SECONDS,
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| Position { seq: row.seq, event: row.event }))
}

/// Advances the cursor, which also renews the lease of its holder.
pub(super) async fn advance_cursor(
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

/// Advances the cursor, and lets the transaction commit without waiting for the disk. A crash of the database server
/// may undo the advance.
pub(super) async fn advance_cursor_asynchronously(
    db: &mut PgConnection,
    book: i32,
    name: &str,
    position: Position,
    holder: Uuid,
) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        r#"update ledger.cursor set seq = $3, event = $4, at = now(), holder = $5
        where book = $1 and name = $2
        returning set_config('synchronous_commit', 'off', true) as "setting""#,
        book,
        name,
        position.seq,
        position.event,
        holder,
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// Releases the cursor, so that another process can take it over immediately.
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

/// Appends events in the given order, and sends one notification to the tasks that follow events.
pub(super) async fn append_events(
    db: &mut PgConnection,
    book: i32,
    events: &[EventToAppend<'_>],
) -> sqlx::Result<()> {
    let topics: Vec<&str> = events.iter().map(|event| event.topic).collect();
    let bodies: Vec<&str> = events.iter().map(|event| event.body.get()).collect();
    let traces: Vec<Option<Uuid>> = events.iter().map(|event| event.trace_id).collect();
    sqlx::query!(
        r#"
        with appended as (
            insert into ledger.event (book, topic, body, trace_id)
            select $1, topic, body::json, trace_id
            from unnest($2::text[], $3::text[], $4::uuid[]) with ordinality t (topic, body, trace_id, n)
            order by n
            returning book
        )
        select pg_notify('event', book::text) as "notified" from appended group by book"#,
        book,
        &topics as &[&str],
        &bodies as &[&str],
        &traces as &[Option<Uuid>],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Reads the events after a position whose order is final: no running transaction can still insert an event before
/// them.
pub(super) async fn events(
    db: &mut PgConnection,
    book: i32,
    after: Position,
    max: i64,
) -> sqlx::Result<Vec<BookEvent>> {
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
    let events = rows.into_iter().map(|row| BookEvent {
        position: Position { seq: row.xid, event: row.id },
        at: row.at,
        trace_id: row.trace_id,
        topic: row.topic,
        body: row.body,
    });
    Ok(events.collect())
}

/// Reads the events of a topic after the position `after`, up to and including the position `until`.
pub(super) async fn events_of_topic(
    db: &mut PgConnection,
    book: i32,
    topic: &str,
    (after, until): (Position, Position),
    limit: i64,
) -> sqlx::Result<Vec<BookEvent>> {
    let rows = sqlx::query!(
        r#"
        select xid, id, at, trace_id, topic, body::text as "body!"
        from ledger.event
        where book = $1 and topic = $2 and (xid, id) > ($3, $4) and (xid, id) <= ($5, $6)
            and xid < ledger.event_horizon()
        order by xid, id
        limit $7"#,
        book,
        topic,
        after.seq,
        after.event,
        until.seq,
        until.event,
        limit,
    )
    .fetch_all(db)
    .await?;
    let events = rows.into_iter().map(|row| BookEvent {
        position: Position { seq: row.xid, event: row.id },
        at: row.at,
        trace_id: row.trace_id,
        topic: row.topic,
        body: row.body,
    });
    Ok(events.collect())
}

/// Largest lag that is counted exactly; a larger lag is reported as this number.
const LAG_MAX: i64 = 10_000;

pub(super) async fn event_lag(
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

/// Returns the lowest id of a transaction that may still be running.
pub(super) async fn horizon(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select ledger.event_horizon() as "horizon!""#).fetch_one(db).await
}
