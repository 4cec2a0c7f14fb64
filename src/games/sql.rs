//! SQL statements that several parts of the games store share.

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::{PublisherId, UserId};

/// Returns the user who acts for a publisher, if the publisher exists.
pub(super) async fn publisher_user(
    db: &mut PgConnection,
    publisher: PublisherId,
) -> Result<Option<UserId>> {
    let user = sqlx::query_scalar!(
        r#"select app_user as "app_user: UserId" from publisher where id = $1"#,
        publisher.0
    );
    Ok(user.fetch_optional(db).await?)
}

/// Creates a stock: a limit on the copies of a game, on the copies sold in a sale, or on the uses of a discount code.
/// Returns the id of the stock.
pub(super) async fn create_stock(db: &mut PgConnection, quantity: i32) -> Result<i64> {
    let id = sqlx::query_scalar!("insert into stock (quantity) values ($1) returning id", quantity);
    Ok(id.fetch_one(db).await?)
}

pub(super) async fn set_quantity(db: &mut PgConnection, stock: i64, quantity: i32) -> Result<()> {
    sqlx::query!("update stock set quantity = $2 where id = $1", stock, quantity)
        .execute(db)
        .await?;
    Ok(())
}
