//! SQL statements for API keys.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Result;
use crate::ids::{ApiKeyId, PublisherId, UserId};

/// An API key as stored, without the hash of its secret.
#[derive(Debug)]
pub struct ApiKeyRow {
    pub id: ApiKeyId,
    pub name: String,
    pub scopes: Vec<String>,
    /// Id of the publisher whose games the key is limited to; `None` if the key has no such limit.
    pub publisher: Option<PublisherId>,
    pub created_at: OffsetDateTime,
    pub last_used_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

/// Inserts a key. Returns `None` if the publisher does not exist.
pub(super) async fn create(
    db: &mut PgConnection,
    name: &str,
    scopes: &[String],
    hash: &[u8],
    publisher: Option<PublisherId>,
) -> Result<Option<ApiKeyRow>> {
    let row = sqlx::query_as!(
        ApiKeyRow,
        r#"insert into api_key (name, scopes, secret_hash, publisher)
        select $1, $2, $3, $4
        where $4::bigint is null or exists (select from publisher where id = $4)
        returning id as "id: ApiKeyId", name, scopes, publisher as "publisher: PublisherId", created_at, last_used_at, revoked_at"#,
        name,
        scopes,
        hash,
        publisher.map(|id| id.0),
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns at most `limit` keys with an id above `after`, ordered by id.
pub(super) async fn list(db: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<ApiKeyRow>> {
    let rows = sqlx::query_as!(
        ApiKeyRow,
        r#"select id as "id: ApiKeyId", name, scopes, publisher as "publisher: PublisherId", created_at, last_used_at, revoked_at
        from api_key where id > $1 order by id limit $2"#,
        after,
        limit
    );
    Ok(rows.fetch_all(db).await?)
}

/// The columns of an API key that are needed to check a credential.
pub(super) struct StoredApiKey {
    pub scopes: Vec<String>,
    /// User account of the publisher whose games the key is limited to; `None` if the key has no such limit.
    pub user: Option<UserId>,
    pub hash: Vec<u8>,
    /// Hash of the previous secret, while it is still valid after a rotation.
    pub hash_before: Option<Vec<u8>>,
    pub is_recently_used: bool,
}

/// Returns the API key with this id; `None` if it does not exist or is revoked.
pub(super) async fn find(db: &mut PgConnection, id: ApiKeyId) -> Result<Option<StoredApiKey>> {
    let row = sqlx::query_as!(
        StoredApiKey,
        r#"select k.scopes, p.app_user as "user?: UserId", k.secret_hash as hash,
            case when k.overlap_until > now() then k.secret_hash_before end as hash_before,
            coalesce(k.last_used_at > now() - interval '1 minute', false) as "is_recently_used!"
        from api_key k
        left join publisher p on p.id = k.publisher
        where k.id = $1 and k.revoked_at is null"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn note_use(db: &mut PgConnection, id: ApiKeyId) -> Result<()> {
    sqlx::query!("update api_key set last_used_at = now() where id = $1", id.0).execute(db).await?;
    Ok(())
}

/// Revokes a key. Returns false if the key does not exist or was already revoked.
pub(super) async fn revoke(db: &mut PgConnection, id: ApiKeyId) -> Result<bool> {
    let update = sqlx::query!(
        "update api_key set revoked_at = now() where id = $1 and revoked_at is null",
        id.0
    );
    Ok(update.execute(db).await?.rows_affected() == 1)
}

/// Gives a key a new secret. The current secret stays valid for `overlap`. A second rotation within that time makes the
/// secret from the first rotation invalid; the original secret stays valid until the time has passed.
pub(super) async fn rotate(
    db: &mut PgConnection,
    id: ApiKeyId,
    hash: &[u8],
    overlap: Duration,
) -> Result<Option<ApiKeyRow>> {
    let row = sqlx::query_as!(
        ApiKeyRow,
        r#"update api_key
        -- A second rotation within the overlap replaces the secret that no client uses yet, not the one in use.
        set secret_hash_before = case when overlap_until > now() then secret_hash_before else secret_hash end,
            secret_hash = $2,
            overlap_until = case when overlap_until > now() then overlap_until else now() + make_interval(secs => $3) end
        where id = $1 and revoked_at is null
        returning id as "id: ApiKeyId", name, scopes, publisher as "publisher: PublisherId", created_at, last_used_at, revoked_at"#,
        id.0,
        hash,
        overlap.as_secs_f64()
    );
    Ok(row.fetch_optional(db).await?)
}
