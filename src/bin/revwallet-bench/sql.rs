//! SQL statements of the benchmark.

use revwallet::ledger::companion::CompanionKind;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

/// Companion (an addition to a posting) that inserts a row in the posting's transaction, as a game purchase does.
pub(crate) static NOTE_COMPANION: CompanionKind = CompanionKind {
    name: "bench.noted",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json) as (n int, seq bigint, account bigint)
), done as (
    insert into public.bench_note (transfer, account)
    select seq, account from input
    on conflict do nothing
    returning transfer
), took as (
    select n from input join done on transfer = seq
)",
};

/// Creates a database. `name` is not escaped, so it must be a constant of this program.
pub(crate) async fn create_database(db: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    db.execute(AssertSqlSafe(format!("create database {name}"))).await?;
    Ok(())
}

/// Creates the table that [`NOTE_COMPANION`] inserts into.
pub(crate) async fn create_notes(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute(
        "create table public.bench_note (
            transfer bigint primary key,
            account bigint not null,
            at timestamptz not null default now()
        )",
    )
    .await?;
    Ok(())
}

pub(crate) async fn count_notes(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from public.bench_note").fetch_one(db).await
}

/// Creates the schema and the accounts of the baseline, into which `pgbench` deposits.
pub(crate) async fn create_baseline(db: &mut PgConnection, accounts: i32) -> sqlx::Result<()> {
    db.execute(include_str!("baseline.sql")).await?;
    sqlx::query("select prepare_baseline($1)").bind(accounts).execute(db).await?;
    Ok(())
}

/// Reserves ids for new accounts of the ledger.
pub(crate) async fn reserve_account_ids(
    db: &mut PgConnection,
    count: i32,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("select nextval('ledger.account_id') from generate_series(1, $1)")
        .bind(count)
        .fetch_all(db)
        .await
}

/// Returns the number of deposits in the ledger.
pub(crate) async fn count_deposits(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from ledger.transfer where home is null and kind = 10")
        .fetch_one(db)
        .await
}

/// Returns the number of transfers between two books.
pub(crate) async fn count_transfers_between_books(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from ledger.transfer_copy").fetch_one(db).await
}

/// Returns the internal address of the leader, the server that writes the ledger for all servers.
pub(crate) async fn leader(db: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar("select address from ledger.leader where book = 1").fetch_one(db).await
}

/// Returns the sequence number of the last transfer that the auditor has checked.
pub(crate) async fn audited_until(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select coalesce(max(seq), 0) from ledger.cursor where book = 1 and name = 'auditor'",
    )
    .fetch_one(db)
    .await
}

/// Begins a transaction and takes its snapshot, which lasts until [`release_snapshot`].
pub(crate) async fn hold_snapshot(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute("begin isolation level repeatable read").await?;
    count_deposits(db).await?;
    Ok(())
}

pub(crate) async fn release_snapshot(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute("commit").await?;
    Ok(())
}

/// Vacuums and checkpoints, as Postgres does over time, so that measurements on ledgers of different sizes start under
/// the same conditions.
pub(crate) async fn vacuum_and_checkpoint(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute("vacuum (analyze) ledger.transfer").await?;
    db.execute("vacuum (analyze) ledger.posting").await?;
    db.execute("checkpoint").await?;
    Ok(())
}

/// Score of every entry on the benchmark's leaderboard `equal`.
pub(crate) const EQUAL_SCORE: i64 = 100;

/// Fills an empty leaderboard with entries. `pattern` is the name of the leaderboard and the pattern of its scores.
/// Returns positions from which pages can be read, spread over the whole leaderboard.
pub(crate) async fn fill_board(
    db: &mut PgConnection,
    pattern: &str,
    entries: i64,
) -> sqlx::Result<Vec<Vec<u8>>> {
    sqlx::query(
        "insert into leaderboard_entry (season, score, subscore, created_at, updated_at, place, owner)
        select s.id, x.score, 0, now(), now(),
            leaderboard_place(false, x.score, 0, nextval('leaderboard_reached')), 'player-' || x.n
        from leaderboard b
        join leaderboard_season s on s.board = b.id
        cross join lateral (
            select n, case b.name
                when 'random' then floor(random() * 1e9)::bigint
                when 'equal' then $2
                else n
            end as score
            from generate_series(1, $3) n
        ) x
        where b.name = $1",
    )
    .bind(pattern)
    .bind(EQUAL_SCORE)
    .bind(entries)
    .execute(&mut *db)
    .await?;
    // Submissions of scores leave each bucket, which counts the entries of a range, between half full and full. So does
    // this statement.
    sqlx::query(
        "insert into leaderboard_bucket (season, level, place, entries)
        select e.season, l.level, case when e.rank = 1 then '' else e.place end, least(l.size, $2 - e.rank + 1)
        from (
            select e.season, e.place, row_number() over (order by e.place) as rank
            from leaderboard b
            join leaderboard_season s on s.board = b.id
            join leaderboard_entry e on e.season = s.id
            where b.name = $1
        ) e
        join (values (1, 96), (2, 6144)) l (level, size) on e.rank % l.size = 1",
    )
    .bind(pattern)
    .bind(entries)
    .execute(&mut *db)
    .await?;
    db.execute("vacuum (analyze) leaderboard_entry").await?;
    db.execute("vacuum (analyze) leaderboard_bucket").await?;
    db.execute("checkpoint").await?;
    sqlx::query_scalar(
        "select int8send(k.season) || k.place
        from leaderboard b
        join leaderboard_season s on s.board = b.id
        join leaderboard_bucket k on k.season = s.id and k.level = 1 and k.place <> ''
        where b.name = $1",
    )
    .bind(pattern)
    .fetch_all(db)
    .await
}

/// Returns the number of exchange orders that have not ended.
pub(crate) async fn open_orders(db: &mut PgConnection) -> anyhow::Result<i64> {
    let open = "select count(*) from saga where ended_at is null";
    Ok(sqlx::query_scalar(open).fetch_one(db).await?)
}

/// Returns the number of completed exchange orders, and the total number of exchange orders.
pub(crate) async fn completed_orders(db: &mut PgConnection) -> anyhow::Result<(i64, i64)> {
    let count = "select count(*) filter (where state = 'completed'), count(*) from saga";
    Ok(sqlx::query_as(count).fetch_one(db).await?)
}
