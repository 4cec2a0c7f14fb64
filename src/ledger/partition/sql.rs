//! SQL statements that create, list, archive and restore partitions of the ledger.

use sqlx::PgConnection;

use super::{Partition, PartitionState};

pub(super) async fn extend(db: &mut PgConnection, rows: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select ledger.extend_partitions($1) as "room!""#, rows)
        .fetch_one(db)
        .await
}

/// Creates books until there are `count`. Returns the number of books.
pub(super) async fn create_books(
    db: &mut PgConnection,
    count: i32,
    rows: i64,
) -> sqlx::Result<i32> {
    sqlx::query_scalar!(r#"select ledger.create_books($1, $2) as "books!""#, count, rows)
        .fetch_one(db)
        .await
}

pub(super) async fn count_books(db: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar!(r#"select count(*)::int as "books!" from ledger.book"#).fetch_one(db).await
}

pub(super) async fn list(db: &mut PgConnection) -> sqlx::Result<Vec<Partition>> {
    let rows = sqlx::query!(
        r#"
        select p.first_seq, p.end_seq, p.name, p.archived_as,
            coalesce(pg_total_relation_size(stored.oid), 0) as "bytes!",
            p.rest is not null and p.archived_at is null as "is_begun!",
            p.archived_at is null and p.end_seq > head.seq as "is_open!",
            stored.oid is not null as "is_in_database!",
            newest.at as "newest?"
        from ledger.partition p
        cross join lateral ledger.last_seal(ledger.book_of(p.first_seq)) head
        left join pg_class stored on stored.oid = to_regclass('ledger.' || coalesce(p.archived_as, p.name))
        left join lateral ledger.last_seal(ledger.book_of(p.first_seq), p.end_seq) newest on newest.seq >= p.first_seq
        order by p.first_seq"#
    );
    let rows = rows.fetch_all(db).await?.into_iter().map(|row| Partition {
        first_seq: row.first_seq,
        last_seq: row.end_seq - 1,
        state: match &row.archived_as {
            Some(_) => PartitionState::Archived,
            None if row.is_begun => PartitionState::Archiving,
            None if row.is_open => PartitionState::Open,
            None => PartitionState::Complete,
        },
        bytes: row.bytes,
        newest: row.newest,
        table: row.archived_as.unwrap_or(row.name),
        is_in_database: row.is_in_database,
    });
    Ok(rows.collect())
}

/// Tries to acquire the lock for archiving and restoring, which the session then holds until it ends. Returns whether
/// it succeeded.
pub(super) async fn try_lock(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select pg_try_advisory_lock(1885434484, 2) as "locked!""#)
        .fetch_one(db)
        .await
}

/// Begins to archive a partition: copies the rows that stay in the ledger, and marks the others as no longer readable.
/// Returns the number of rows that stay.
pub(super) async fn begin_archive(db: &mut PgConnection, first: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select ledger.begin_archive($1) as "kept!""#, first).fetch_one(db).await
}

/// Replaces the partition's table with the table that contains only the rows that stay in the ledger.
pub(super) async fn finish_archive(db: &mut PgConnection, first: i64) -> sqlx::Result<()> {
    sqlx::query_scalar!(r#"select 1 as "done!" from ledger.finish_archive($1)"#, first)
        .fetch_one(db)
        .await?;
    Ok(())
}

/// Returns the name of the table that contains the transfers of an archived partition.
pub(super) async fn table(db: &mut PgConnection, first: i64) -> sqlx::Result<String> {
    sqlx::query_scalar!(
        r#"select archived_as as "name!" from ledger.partition where first_seq = $1"#,
        first,
    )
    .fetch_one(db)
    .await
}

/// Returns the other transactions that are running in this database.
pub(super) async fn running_transactions(db: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select l.virtualxid as "transaction!"
        from pg_locks l
        join pg_stat_activity a on a.pid = l.pid
        where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and l.pid <> pg_backend_pid()
            and (a.datname = current_database() or a.datname is null)
            -- Vacuum does not read the book.
            and a.backend_type <> 'autovacuum worker'"#
    )
    .fetch_all(db)
    .await
}

pub(super) async fn restore(db: &mut PgConnection, first: i64) -> sqlx::Result<()> {
    sqlx::query_scalar!(r#"select 1 as "done!" from ledger.restore_partition($1)"#, first)
        .fetch_one(db)
        .await?;
    Ok(())
}
