//! Statements of publishers.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::games::BOOK;
use crate::idempotency::HashedKey;
use crate::ids::{PublisherId, UserId};

pub(super) struct PublisherRow {
    pub id: PublisherId,
    pub user: UserId,
    pub name: String,
    pub fee: Option<i32>,
}

pub(super) async fn user_exists(db: &mut PgConnection, user: UserId) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (select from app_user where id = $1) as "exists!""#,
        user.0
    );
    Ok(exists.fetch_one(db).await?)
}

/// Inserts a publisher; none if the user is one already.
pub(super) async fn insert(
    db: &mut PgConnection,
    user: UserId,
    name: &str,
    fee: Option<i32>,
    key: Option<HashedKey>,
) -> Result<Option<PublisherId>> {
    let id = sqlx::query_scalar!(
        r#"insert into publisher (app_user, name, fee, key_hash, content_hash) values ($1, $2, $3, $4, $5)
        on conflict do nothing
        returning id as "id: PublisherId""#,
        user.0,
        name,
        fee,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    Ok(id.fetch_optional(db).await?)
}

pub(super) async fn find_by_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(PublisherRow, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"select id as "id: PublisherId", app_user as "user: UserId", name, fee, content_hash
        from publisher where key_hash = $1"#,
        key
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| {
        let publisher = PublisherRow { id: row.id, user: row.user, name: row.name, fee: row.fee };
        (publisher, row.content_hash)
    }))
}

/// Changes a publisher; none stays as it is.
pub(super) async fn update(
    db: &mut PgConnection,
    id: PublisherId,
    name: Option<&str>,
    fee: Option<i32>,
) -> Result<Option<PublisherRow>> {
    let row = sqlx::query_as!(
        PublisherRow,
        r#"update publisher set name = coalesce($2, name), fee = coalesce($3, fee) where id = $1
        returning id as "id: PublisherId", app_user as "user: UserId", name, fee"#,
        id.0,
        name,
        fee,
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn find(
    db: &mut PgConnection,
    id: PublisherId,
) -> Result<Option<(PublisherRow, String)>> {
    let row = sqlx::query!(
        r#"select app_user as "user: UserId", name, fee, ledger.read_position($2) as "position!"
        from publisher where id = $1"#,
        id.0,
        BOOK,
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| {
        (PublisherRow { id, user: row.user, name: row.name, fee: row.fee }, row.position)
    }))
}
