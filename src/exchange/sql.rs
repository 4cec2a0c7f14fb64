//! SQL statements on quotes and orders.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::terms::{Side, Terms};
use crate::error::{Error, Result};
use crate::ids::{SagaId, TransferId, UserId};
use crate::ledger::companion::CompanionKind;
use crate::ledger::money::Minor;

/// Statement that places an order and begins its saga in the transaction of a ledger posting, if the quote is open and
/// the user is within the limits.
pub static PLACED: CompanionKind = CompanionKind {
    name: "exchange.placed",
    sql: "with took as (select n from public.place_orders($2::text::json) n)",
};

/// Creates a quote, and deletes a few quotes that expired long ago. Returns the expiry of the new quote.
pub(super) async fn create_quote(
    db: &mut PgConnection,
    id: Uuid,
    user: UserId,
    terms: &Terms,
    currency: &str,
    lifetime_seconds: f64,
    kept_seconds: f64,
) -> Result<OffsetDateTime> {
    let expires_at = sqlx::query_scalar!(
        "with old as (
            delete from exchange_quote where id in (
                select id from exchange_quote
                where expires_at < clock_timestamp() - make_interval(secs => $10)
                order by expires_at limit 10 for update skip locked
            )
        )
        insert into exchange_quote (id, app_user, side, currency, fiat, fee, crypto, price, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8::text::numeric, clock_timestamp() + make_interval(secs => $9))
        returning expires_at",
        id,
        user.0,
        terms.side.name(),
        currency,
        terms.fiat.0,
        terms.fee.0,
        terms.crypto.0,
        terms.price.to_string(),
        lifetime_seconds,
        kept_seconds,
    );
    Ok(expires_at.fetch_one(db).await?)
}

/// Returns the terms of a quote, if the quote belongs to this user.
pub(super) async fn find_quote(
    db: &mut PgConnection,
    id: Uuid,
    user: UserId,
    currency: &str,
) -> Result<Option<Terms>> {
    let row = sqlx::query!(
        r#"select side, fiat, fee, crypto, price::text as "price!"
        from exchange_quote where id = $1 and app_user = $2 and currency = $3"#,
        id,
        user.0,
        currency,
    );
    let Some(row) = row.fetch_optional(db).await? else { return Ok(None) };
    let side: Result<Side, String> = row.side.parse();
    let price: Result<rust_decimal::Decimal, _> = row.price.parse();
    Ok(Some(Terms {
        side: side.map_err(|why| Error::Internal(anyhow::Error::msg(why)))?,
        fiat: Minor(row.fiat),
        fee: Minor(row.fee),
        crypto: Minor(row.crypto),
        price: price.map_err(|cause| Error::Internal(cause.into()))?.normalize(),
    }))
}

/// Returns whether a quote can still be used: it has not expired, and no order has used it.
pub(super) async fn is_quote_open(db: &mut PgConnection, id: Uuid) -> Result<bool> {
    let is_open = sqlx::query_scalar!(
        r#"select exists (
            select from exchange_quote q
            where q.id = $1 and clock_timestamp() < q.expires_at
                and not exists (select from exchange_order o where o.quote = q.id)
        ) as "exists!""#,
        id,
    );
    Ok(is_open.fetch_one(db).await?)
}

/// Returns the total fiat amount of a user's orders in the last `hours` hours, excluding failed orders.
pub(super) async fn volume(
    db: &mut PgConnection,
    user: UserId,
    currency: &str,
    hours: i32,
) -> Result<i64> {
    let volume = sqlx::query_scalar!(
        r#"select exchange_volume($1, $2, clock_timestamp() - make_interval(hours => $3)) as "volume!""#,
        user.0,
        currency,
        hours,
    );
    Ok(volume.fetch_one(db).await?)
}

/// Finds the order for which this transfer holds the user's money.
pub(super) async fn order_of(
    db: &mut PgConnection,
    transfer: TransferId,
) -> Result<Option<SagaId>> {
    let id = sqlx::query_scalar!(
        r#"select id as "id: SagaId" from exchange_order where transfer = $1"#,
        transfer.0
    );
    Ok(id.fetch_optional(db).await?)
}

/// Filter of orders, for a list or for a single order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OrderFilter {
    pub id: Option<SagaId>,
    pub user: Option<UserId>,
    pub state: Option<&'static str>,
    /// Only orders with an id below this id are returned.
    pub before: i64,
    pub limit: i64,
}

/// An order with the state of its saga.
pub(super) struct OrderRow {
    pub id: SagaId,
    pub user: UserId,
    pub side: String,
    pub fiat: i64,
    pub fee: i64,
    pub crypto: i64,
    pub price: String,
    pub quote: Option<Uuid>,
    pub at: OffsetDateTime,
    pub state: String,
    pub reason: Option<String>,
    pub ended_at: Option<OffsetDateTime>,
    pub deadline: OffsetDateTime,
}

/// Returns the orders that match a filter, newest first.
pub(super) async fn orders(db: &mut PgConnection, filter: &OrderFilter) -> Result<Vec<OrderRow>> {
    let rows = sqlx::query_as!(
        OrderRow,
        r#"select o.id as "id: SagaId", o.app_user as "user: UserId", o.side, o.fiat, o.fee, o.crypto,
            o.price::text as "price!", o.quote, o.at, s.state, s.reason, s.ended_at, s.deadline
        from exchange_order o join saga s on s.id = o.id
        where ($1::bigint is null or o.id = $1) and ($2::bigint is null or o.app_user = $2)
            and ($3::text is null or s.state = $3) and o.id < $4
        order by o.id desc limit $5"#,
        filter.id.map(|id| id.0),
        filter.user.map(|user| user.0),
        filter.state,
        filter.before,
        filter.limit,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns the user who placed an order, or `None` if the order does not exist.
pub(super) async fn owner(db: &mut PgConnection, order: SagaId) -> Result<Option<UserId>> {
    let owner = sqlx::query_scalar!(
        r#"select app_user as "user: UserId" from exchange_order where id = $1"#,
        order.0
    );
    Ok(owner.fetch_optional(db).await?)
}

/// Returns the ids of open orders in a state, oldest first.
pub(super) async fn open_orders(
    db: &mut PgConnection,
    state: &str,
    limit: i64,
) -> Result<Vec<SagaId>> {
    let ids = sqlx::query_scalar!(
        r#"select id as "id: SagaId" from saga
        where state = $1 and ended_at is null order by id limit $2"#,
        state,
        limit,
    );
    Ok(ids.fetch_all(db).await?)
}

/// Finds the user with the role `house`, which represents the owner of the hot wallets.
pub(super) async fn house(db: &mut PgConnection) -> Result<Option<UserId>> {
    let house =
        sqlx::query_scalar!(r#"select id as "id: UserId" from app_user where role = 'house'"#);
    Ok(house.fetch_optional(db).await?)
}

/// Returns the e-mail address and the first name of a user.
pub(super) async fn recipient(
    db: &mut PgConnection,
    user: UserId,
) -> Result<(String, Option<String>)> {
    let row = sqlx::query!("select email, first_name from app_user where id = $1", user.0);
    let row = row.fetch_one(db).await?;
    Ok((row.email, row.first_name))
}
