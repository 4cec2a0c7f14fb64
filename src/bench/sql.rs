//! The statements of the benchmark.

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::ledger::companion::CompanionKind;

/// A row of the benchmark that moves with money, as a purchase's would.
pub(super) static NOTED: CompanionKind = CompanionKind {
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

/// Only names that stand in this program.
pub(super) async fn create_database(db: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    db.execute(AssertSqlSafe(format!("create database {name}"))).await?;
    Ok(())
}

/// Where [`NOTED`] writes.
pub(super) async fn create_notes(db: &mut PgConnection) -> sqlx::Result<()> {
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

pub(super) async fn count_notes(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from public.bench_note").fetch_one(db).await
}

/// Ids of accounts that nobody else will have.
pub(super) async fn account_ids(db: &mut PgConnection, count: i32) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("select nextval('ledger.account_id') from generate_series(1, $1)")
        .bind(count)
        .fetch_all(db)
        .await
}

/// How many deposits are in the book.
pub(super) async fn count_deposits(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from ledger.transfer where book = 1 and kind = 10")
        .fetch_one(db)
        .await
}

/// Up to where the auditor has read.
pub(super) async fn audited(db: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select coalesce(max(seq), 0) from ledger.cursor where book = 1 and name = 'auditor'",
    )
    .fetch_one(db)
    .await
}

/// Takes a snapshot that lasts until the transaction ends.
pub(super) async fn hold_snapshot(db: &mut PgConnection) -> sqlx::Result<i64> {
    db.execute("begin isolation level repeatable read").await?;
    count_deposits(db).await
}

pub(super) async fn release_snapshot(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute("commit").await?;
    Ok(())
}

/// What a server does by itself when it has time: so that two books begin alike.
pub(super) async fn settle(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute("vacuum (analyze) ledger.transfer").await?;
    db.execute("vacuum (analyze) ledger.posting").await?;
    db.execute("checkpoint").await?;
    Ok(())
}
