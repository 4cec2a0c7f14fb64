//! SQL statements of the job queue. They are not checked at compile time, because the crate `graphile_worker` creates
//! its tables only at run time. Instead, the tests run each statement.

use std::time::Duration;

use serde_json::Value;
use sqlx::{Executor, PgConnection};

use crate::error::Result;

/// Enqueues a job in the caller's transaction. Jobs with the same `queue` run one after another.
///
/// If a job with the same `key` is waiting, no job is added, and the waiting job keeps the backoff from its earlier
/// failures. A row lock keeps the waiting job from starting before this transaction ends, so the job sees everything
/// that this transaction writes. If a job with the key is running, it may have read its data before this transaction
/// wrote, so a second job is added, which runs after the first.
pub async fn enqueue(
    db: &mut PgConnection,
    task: &str,
    payload: &Value,
    queue: &str,
    key: &str,
    attempts_max: i16,
) -> Result<()> {
    for key in [key, &format!("{key}-next")] {
        let found: Option<(bool, bool)> = sqlx::query_as(
            "select locked_at is not null, attempts >= max_attempts
            from graphile_worker._private_jobs where key = $1 for update",
        )
        .bind(key)
        .fetch_optional(&mut *db)
        .await?;
        match found {
            Some((false, false)) => return Ok(()),
            Some((true, _)) => {}
            // A job that has used up its attempts is added again, so that it gets new attempts.
            None | Some((false, true)) => {
                return add(db, task, payload, queue, key, attempts_max).await;
            }
        }
    }
    Ok(())
}

/// Postpones the waiting job with this key by `delay`, and records that `attempts` attempts were already made. If a
/// running job cannot do its work yet, it enqueues a replacement, and postpones the replacement with this function.
pub async fn defer(db: &mut PgConnection, key: &str, attempts: i32, delay: Duration) -> Result<()> {
    sqlx::query(
        "update graphile_worker._private_jobs
        set attempts = least(greatest(attempts, $2), max_attempts - 1),
            run_at = greatest(run_at, now() + make_interval(secs => $3)),
            updated_at = now()
        where key in ($1, $1 || '-next') and locked_at is null",
    )
    .bind(key)
    .bind(attempts)
    .bind(delay.as_secs_f64())
    .execute(db)
    .await?;
    Ok(())
}

async fn add(
    db: &mut PgConnection,
    task: &str,
    payload: &Value,
    queue: &str,
    key: &str,
    attempts_max: i16,
) -> Result<()> {
    sqlx::query(
        "select from graphile_worker.add_job(
            identifier => $1, payload => $2::text::json, queue_name => $3,
            max_attempts => $4, job_key => $5, job_key_mode => 'preserve_run_at')",
    )
    .bind(task)
    .bind(payload.to_string())
    .bind(queue)
    .bind(attempts_max)
    .bind(key)
    .execute(db)
    .await?;
    Ok(())
}

/// Lets the database role of the application read and write the tables of the queue.
pub(super) async fn grant_to_application(db: &mut PgConnection) -> sqlx::Result<()> {
    db.execute(
        "do $$ declare t name; begin
            if exists (select from pg_roles where rolname = 'revwallet_app') then
                -- The tables have row-level security without a policy: only their owner sees a row.
                for t in select tablename from pg_tables
                    where schemaname = 'graphile_worker' and rowsecurity
                    and not exists (
                        select from pg_policies p
                        where p.schemaname = 'graphile_worker' and p.tablename = pg_tables.tablename
                        and p.policyname = 'revwallet_app')
                loop
                    execute format(
                        'create policy revwallet_app on graphile_worker.%I to revwallet_app using (true) with check (true)', t);
                end loop;
                grant usage on schema graphile_worker to revwallet_app;
                grant select, insert, update, delete on all tables in schema graphile_worker to revwallet_app;
                grant usage, select on all sequences in schema graphile_worker to revwallet_app;
                grant execute on all functions in schema graphile_worker to revwallet_app;
            end if;
        end $$",
    )
    .await?;
    Ok(())
}

/// Counts the jobs of each kind that are due but not yet running.
pub(super) async fn queue_depths(db: &mut PgConnection) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select task_identifier, count(*) from graphile_worker.jobs
        where run_at <= now() and locked_at is null and attempts < max_attempts
        group by task_identifier",
    )
    .fetch_all(db)
    .await
}
