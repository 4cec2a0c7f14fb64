//! The statements of API keys.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Result;

/// A key as its owner may see it.
#[derive(Debug)]
pub struct Row {
    pub id: i64,
    pub name: String,
    pub scopes: Vec<String>,
    pub created_at: OffsetDateTime,
    pub last_used_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

pub(super) async fn create(
    db: &mut PgConnection,
    name: &str,
    scopes: &[String],
    hash: &[u8],
) -> Result<Row> {
    let row = sqlx::query_as!(
        Row,
        "insert into api_key (name, scopes, secret_hash) values ($1, $2, $3)
        returning id, name, scopes, created_at, last_used_at, revoked_at",
        name,
        scopes,
        hash
    );
    Ok(row.fetch_one(db).await?)
}

/// Keys with an id above `after`.
pub(super) async fn list(db: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, name, scopes, created_at, last_used_at, revoked_at
        from api_key where id > $1 order by id limit $2",
        after,
        limit
    );
    Ok(rows.fetch_all(db).await?)
}

/// What a credential is held against.
pub(super) struct Stored {
    pub scopes: Vec<String>,
    pub hash: Vec<u8>,
    /// Of the secret before a rotation, while it is still believed.
    pub hash_before: Option<Vec<u8>>,
    pub is_used_lately: bool,
}

/// A key that is not revoked.
pub(super) async fn find(db: &mut PgConnection, id: i64) -> Result<Option<Stored>> {
    let row = sqlx::query_as!(
        Stored,
        r#"select scopes, secret_hash as hash,
            case when overlap_until > now() then secret_hash_before end as hash_before,
            coalesce(last_used_at > now() - interval '1 minute', false) as "is_used_lately!"
        from api_key where id = $1 and revoked_at is null"#,
        id
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn note_use(db: &mut PgConnection, id: i64) -> Result<()> {
    sqlx::query!("update api_key set last_used_at = now() where id = $1", id).execute(db).await?;
    Ok(())
}

/// Whether there was such a key that was not revoked.
pub(super) async fn revoke(db: &mut PgConnection, id: i64) -> Result<bool> {
    let update = sqlx::query!(
        "update api_key set revoked_at = now() where id = $1 and revoked_at is null",
        id
    );
    Ok(update.execute(db).await?.rows_affected() == 1)
}

/// Gives a key another secret; the one before is believed for a while.
pub(super) async fn rotate(
    db: &mut PgConnection,
    id: i64,
    hash: &[u8],
    overlap: Duration,
) -> Result<Option<Row>> {
    let row = sqlx::query_as!(
        Row,
        "update api_key
        -- Twice within the overlap: the one that nobody has seen at work makes room, not the one that is in use.
        set secret_hash_before = case when overlap_until > now() then secret_hash_before else secret_hash end,
            secret_hash = $2,
            overlap_until = case when overlap_until > now() then overlap_until else now() + make_interval(secs => $3) end
        where id = $1 and revoked_at is null
        returning id, name, scopes, created_at, last_used_at, revoked_at",
        id,
        hash,
        overlap.as_secs_f64()
    );
    Ok(row.fetch_optional(db).await?)
}
