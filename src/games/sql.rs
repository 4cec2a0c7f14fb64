//! Statements that the parts of the store share.

use sqlx::PgConnection;

use super::BOOK;
use crate::error::Result;

/// The position of the snapshot of a connection.
pub(super) async fn read_position(db: &mut PgConnection) -> Result<String> {
    let position = sqlx::query_scalar!(r#"select ledger.read_position($1) as "position!""#, BOOK);
    Ok(position.fetch_one(db).await?)
}
