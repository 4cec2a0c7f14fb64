//! SQL statements on discount codes.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{CodeDiscount, NewCode};
use crate::error::Result;
use crate::idempotency_key::HashedKey;
use crate::ids::{CodeId, GameId, UserId};

/// A discount code that is valid for a game now.
pub(super) struct CodeRow {
    pub id: CodeId,
    pub percent: Option<i32>,
    pub amount: Option<i64>,
    pub currency: Option<String>,
    pub stock: Option<i64>,
    pub left: Option<i32>,
    pub uses_per_user: Option<i32>,
    /// Ordinal number of the user's next use of the code: the lowest number that is not taken yet. `None` if the user
    /// has no use left, or if the uses per user are not limited.
    pub next_use: Option<i32>,
    pub ends_at: Option<OffsetDateTime>,
}

pub(super) async fn find_usable(
    db: &mut PgConnection,
    code: &str,
    game: GameId,
    buyer: UserId,
) -> Result<Option<CodeRow>> {
    let row = sqlx::query_as!(
        CodeRow,
        r#"
        select c.id as "id: CodeId", percent, amount, c.currency, c.stock,
            case when c.stock is not null then stock_left(c.stock) end as "left", uses_per_user,
            (
                select min(free) from generate_series(1, c.uses_per_user) s (free)
                where not exists (
                    select from discount_code_use u where u.code = c.id and u.app_user = $3 and u.number = s.free
                )
            ) as next_use,
            ends_at
        from discount_code c join game g on g.id = $2
        where c.code = $1
            and (starts_at is null or starts_at <= clock_timestamp()) and (ends_at is null or clock_timestamp() < ends_at)
            and (c.game is null or c.game = g.id) and (c.publisher is null or c.publisher = g.publisher)"#,
        code,
        game.0,
        buyer.0,
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn find_by_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(CodeId, String, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"select id as "id: CodeId", code, content_hash from discount_code where key_hash = $1"#,
        key
    );
    Ok(row.fetch_optional(db).await?.map(|row| (row.id, row.code, row.content_hash)))
}

/// Inserts a discount code. Returns `None` if the code or the idempotency key exists already.
pub(super) async fn insert(
    db: &mut PgConnection,
    new: &NewCode,
    code: &str,
    stock: Option<i64>,
    key: Option<HashedKey>,
) -> Result<Option<CodeId>> {
    let (percent, amount) = match new.discount {
        CodeDiscount::Percent(rate) => (Some(rate.to_stored()), None),
        CodeDiscount::Amount(price) => (None, Some(price)),
    };
    let id = sqlx::query_scalar!(
        r#"insert into discount_code (
            code, percent, amount, currency, publisher, game, starts_at, ends_at, stock, uses_per_user, key_hash, content_hash)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict do nothing
        returning id as "id: CodeId""#,
        code,
        percent,
        amount.map(|price| price.amount.0),
        amount.as_ref().map(|price| price.currency.code()),
        new.publisher.map(|id| id.0),
        new.game.map(|id| id.0),
        new.starts_at,
        new.ends_at,
        stock,
        new.uses_per_user,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    Ok(id.fetch_optional(db).await?)
}
