//! SQL statements on sales of games.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Sale, SaleDiscount};
use crate::error::Result;
use crate::ids::GameId;

/// A sale as stored in the database.
pub(super) struct SaleRow {
    pub name: String,
    pub percent: Option<i32>,
    pub price: Option<i64>,
    pub currency: Option<String>,
    pub starts_at: OffsetDateTime,
    pub ends_at: OffsetDateTime,
    pub stock: Option<i64>,
    pub budget: Option<i32>,
    pub left: Option<i32>,
}

pub(super) async fn count(db: &mut PgConnection, game: GameId) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from game_sale where game = $1"#,
        game.0
    );
    Ok(count.fetch_one(db).await?)
}

pub(super) async fn find(
    db: &mut PgConnection,
    game: GameId,
    name: &str,
) -> Result<Option<SaleRow>> {
    let row = sqlx::query_as!(
        SaleRow,
        r#"select name, percent, price, currency, starts_at, ends_at, stock, q.quantity as "budget?",
            case when stock is not null then stock_left(stock) end as "left"
        from game_sale s left join stock q on q.id = s.stock
        where game = $1 and name = $2"#,
        game.0,
        name,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns the sales of a game, latest start first.
pub(super) async fn list(db: &mut PgConnection, game: GameId) -> Result<Vec<SaleRow>> {
    let rows = sqlx::query_as!(
        SaleRow,
        r#"select name, percent, price, currency, starts_at, ends_at, stock, q.quantity as "budget?",
            case when stock is not null then stock_left(stock) end as "left"
        from game_sale s left join stock q on q.id = s.stock
        where game = $1
        order by starts_at desc, name"#,
        game.0,
    );
    Ok(rows.fetch_all(db).await?)
}

pub(super) async fn put(
    db: &mut PgConnection,
    game: GameId,
    sale: &Sale,
    stock: Option<i64>,
) -> Result<()> {
    let (percent, price) = match sale.discount {
        SaleDiscount::Percent(rate) => (Some(rate.to_stored()), None),
        SaleDiscount::Price(price) => (None, Some(price)),
    };
    sqlx::query!(
        "insert into game_sale (game, name, percent, price, currency, starts_at, ends_at, stock)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (game, name) do update
        set percent = $3, price = $4, currency = $5, starts_at = $6, ends_at = $7, stock = $8",
        game.0,
        sale.name,
        percent,
        price.map(|price| price.amount.0),
        price.as_ref().map(|price| price.currency.code()),
        sale.starts_at,
        sale.ends_at,
        stock,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes a sale. Returns false if the game has no sale with this name.
pub(super) async fn delete(db: &mut PgConnection, game: GameId, name: &str) -> Result<bool> {
    let deleted = sqlx::query!("delete from game_sale where game = $1 and name = $2", game.0, name);
    Ok(deleted.execute(db).await?.rows_affected() == 1)
}
