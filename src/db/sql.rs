//! SQL statements about the database itself.

use sqlx::{Executor, PgConnection};
use uuid::Uuid;

use crate::error::Result;

/// Executes a trivial query, to find out whether the server responds.
pub(super) async fn ping(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("select 1 as one").fetch_one(db).await?;
    Ok(())
}

/// Returns the version of the server as a number, and whether the server is a replica.
pub(super) async fn server(db: &mut PgConnection) -> Result<(i32, bool), sqlx::Error> {
    let row = sqlx::query!(
        r#"
        select
            current_setting('server_version_num')::int as "version!",
            pg_is_in_recovery() as "replica!""#
    )
    .fetch_one(db)
    .await?;
    Ok((row.version, row.replica))
}

/// Returns whether Citus distributes the ledger over several servers.
pub(super) async fn is_distributed(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let has_citus = sqlx::query_scalar!(
        r#"select to_regclass('pg_catalog.pg_dist_partition') is not null as "has_citus!""#
    );
    if !has_citus.fetch_one(&mut *db).await? {
        return Ok(false);
    }
    // Not checked at compile time, because the table belongs to Citus.
    sqlx::query_scalar(
        "select exists (select from pg_dist_partition where logicalrelid = to_regclass('ledger.transfer'))",
    )
    .fetch_one(db)
    .await
}

/// Distributes the tables of the ledger by book over the servers of the Citus cluster.
pub(super) async fn distribute(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    db.execute(include_str!("distribute.sql")).await?;
    Ok(())
}

/// Switches to the role of the application, if the role exists and the user may use it. The role has fewer rights than
/// the owner of the tables.
pub(crate) async fn become_application(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        select set_config('role', rolname, false) as "role"
        from pg_roles
        where rolname = 'revwallet_app' and pg_has_role(oid,
            case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end)"#
    )
    .fetch_optional(db)
    .await?;
    Ok(())
}

/// Returns the position in the ledger up to which the snapshot of this statement is current.
pub(super) async fn read_position(db: &mut PgConnection) -> Result<String> {
    let position = sqlx::query_scalar!(r#"select ledger.position() as "position!""#);
    Ok(position.fetch_one(db).await?)
}

/// State of a copy of a database: the id of its installation, the last seal (the record that ends a committed batch) of
/// each book of its ledger, and the position up to which the copy has replayed the log of the original.
pub(super) struct StateOfCopy {
    installation: Uuid,
    seqs: Vec<i64>,
    hashes: Vec<Vec<u8>>,
    pub replayed: i64,
}

pub(super) async fn state_of_copy(db: &mut PgConnection) -> Result<StateOfCopy> {
    let state = sqlx::query_as!(
        StateOfCopy,
        r#"
        select i.id as installation, s.seqs as "seqs!", s.hashes as "hashes!",
            -- A database that is no replica has replayed what it has written.
            (coalesce(pg_last_wal_replay_lsn(), pg_current_wal_lsn()) - '0/0')::bigint as "replayed!"
        from installation i
        cross join lateral (
            select array_agg(seq) as seqs, array_agg(hash) as hashes
            from ledger.book b
            cross join lateral ledger.last_seal(b.book) head
        ) s"#
    );
    Ok(state.fetch_one(db).await?)
}

/// Returns the position up to which this database has written its write-ahead log.
pub(super) async fn written(db: &mut PgConnection) -> Result<i64> {
    let written =
        sqlx::query_scalar!(r#"select (pg_current_wal_lsn() - '0/0')::bigint as "written!""#);
    Ok(written.fetch_one(db).await?)
}

/// Returns whether `copy` is a copy of this database: this database has the same installation id, and contains the last
/// seals (records that end committed batches) of the copy.
pub(super) async fn is_copy(db: &mut PgConnection, copy: &StateOfCopy) -> Result<bool> {
    let is_copy = sqlx::query_scalar!(
        r#"
        select i.id = $1 and not exists (
            select from unnest($2::bigint[], $3::bytea[]) copied (seq, hash)
            where not exists (
                select from ledger.last_seal(ledger.book_of(copied.seq), copied.seq + 1) s
                where s.seq = copied.seq and s.hash = copied.hash
            )
        ) as "is_copy!"
        from installation i"#,
        copy.installation,
        &copy.seqs,
        &copy.hashes,
    );
    Ok(is_copy.fetch_one(db).await?)
}

/// Returns the name of the current user if the application's role exists but this user may not switch to it.
pub(super) async fn user_without_role(
    db: &mut PgConnection,
) -> Result<Option<String>, sqlx::Error> {
    let user = sqlx::query_scalar!(
        r#"
        select current_user::text as "user!"
        from pg_roles
        where rolname = 'revwallet_app' and not pg_has_role(oid,
            case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end)"#
    );
    user.fetch_optional(db).await
}

/// Returns the id of the installation. `revwallet restored` changes it, to distinguish a restored database from the
/// lost original.
pub(super) async fn installation(db: &mut PgConnection) -> Result<Uuid> {
    Ok(sqlx::query_scalar!("select id from installation").fetch_one(db).await?)
}

/// Gives the installation a new id, and returns the id.
pub(crate) async fn renew_installation(db: &mut PgConnection) -> Result<Uuid> {
    let id = sqlx::query_scalar!("update installation set id = gen_random_uuid() returning id");
    Ok(id.fetch_one(db).await?)
}

/// Advances every id sequence by `count`, so that ids assigned after a backup are not assigned again.
pub(crate) async fn skip_ids(db: &mut PgConnection, count: i64) -> Result<()> {
    sqlx::query!(
        r#"
        select setval(format('%I.%I', schemaname, sequencename)::regclass, coalesce(last_value, 0) + $1)
        from pg_sequences
        where schemaname in ('public', 'ledger')"#,
        count,
    )
    .fetch_all(db)
    .await?;
    Ok(())
}

/// Makes sure that new events are ordered after the existing events, even if this database was restored on another
/// server.
pub(super) async fn repair_event_shift(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("select ledger.mend_event_shift()").fetch_one(db).await?;
    Ok(())
}

/// Returns the versions of the migrations that were applied, oldest first.
pub(super) async fn migrations(db: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    // The table does not exist before the first migration.
    let exists =
        sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is not null as "exists!""#)
            .fetch_one(&mut *db)
            .await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_scalar!("select version from _sqlx_migrations order by version").fetch_all(db).await
}

/// Replaces the checksum of an applied migration, if the stored checksum equals `former` (in hexadecimal digits).
pub(super) async fn replace_checksum(
    db: &mut PgConnection,
    version: i64,
    former: &str,
    checksum: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update _sqlx_migrations set checksum = $3 where version = $1 and checksum = decode($2, 'hex')",
        version,
        former,
        checksum,
    )
    .execute(db)
    .await?;
    Ok(())
}
