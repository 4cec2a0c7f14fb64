//! SQL statements on the idempotency keys of game events.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Result;

/// Stores an idempotency key. If an earlier request has already stored the key, returns the hash of the earlier
/// request's content.
pub(super) async fn claim_key(
    db: &mut PgConnection,
    key: Uuid,
    content: Uuid,
) -> Result<Option<Uuid>> {
    let claimed = sqlx::query!(
        "insert into game_event_key (key_hash, content_hash) values ($1, $2) on conflict do nothing",
        key,
        content,
    )
    .execute(&mut *db)
    .await?;
    if claimed.rows_affected() == 1 {
        return Ok(None);
    }
    let known =
        sqlx::query_scalar!("select content_hash from game_event_key where key_hash = $1", key);
    Ok(Some(known.fetch_one(db).await?))
}

/// Deletes up to `limit` idempotency keys that are older than `seconds`, except keys that another process has locked.
/// Returns the number of deleted keys.
pub(super) async fn remove_keys(db: &mut PgConnection, seconds: f64, limit: i64) -> Result<i64> {
    let removed = sqlx::query!(
        "delete from game_event_key
        where key_hash in (
            select key_hash from game_event_key
            where at < now() - make_interval(secs => $1)
            order by at limit $2
            for update skip locked
        )",
        seconds,
        limit,
    )
    .execute(db)
    .await?;
    Ok(i64::try_from(removed.rows_affected()).unwrap_or(i64::MAX))
}
