//! SQL statements that count attempts for the throttle.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::NextAttempt;
use crate::error::Result;

/// Counts an attempt against a limit. If the attempt has to wait, counts nothing and returns `None`.
pub(super) async fn count_attempt(
    db: &mut PgConnection,
    key: Uuid,
    free: i32,
    [expiry, wait_min, wait_max]: [Duration; 3],
) -> Result<Option<NextAttempt>> {
    let row = sqlx::query_scalar!(
        r#"
        insert into attempt as a (key, count) values ($1, 1)
        on conflict (key) do update
        set last_at = now(),
            count = attempts_remembered(a.count, a.last_at, $2, $3) + 1,
            locked_until = case
                when attempts_remembered(a.count, a.last_at, $2, $3) + 1 >= $2 then
                    now() + make_interval(secs => least($5, $4 * power(2::float8, least(
                        attempts_remembered(a.count, a.last_at, $2, $3) + 1 - $2, 30))))
            end
        where a.locked_until is null or a.locked_until <= now()
        returning locked_until is not null as "locks!""#,
        key,
        free,
        expiry.as_secs_f64(),
        wait_min.as_secs_f64(),
        wait_max.as_secs_f64(),
    );
    let has_to_wait = row.fetch_optional(db).await?;
    Ok(has_to_wait.map(|wait| if wait { NextAttempt::HasToWait } else { NextAttempt::Free }))
}

/// Returns the time until a limit allows the next attempt.
pub(super) async fn remaining_wait(db: &mut PgConnection, key: Uuid) -> Result<Duration> {
    let seconds = sqlx::query_scalar!(
        r#"select extract(epoch from locked_until - now())::float8 as "seconds" from attempt where key = $1"#,
        key
    );
    let seconds = seconds.fetch_optional(db).await?.flatten().unwrap_or_default();
    Ok(Duration::from_secs_f64(seconds.max(0.0)))
}

/// Resets a limit: removes its counted attempts and its wait.
pub(super) async fn reset(db: &mut PgConnection, key: Uuid) -> Result<()> {
    sqlx::query!("delete from attempt where key = $1", key).execute(db).await?;
    Ok(())
}

/// Subtracts an attempt from a limit, together with the wait that the attempt started.
pub(super) async fn take_back(db: &mut PgConnection, key: Uuid) -> Result<()> {
    let update = sqlx::query!(
        "update attempt set count = greatest(count - 1, 0), locked_until = null where key = $1",
        key
    );
    update.execute(db).await?;
    Ok(())
}
