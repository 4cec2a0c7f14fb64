//! SQL statements on the leader of the game.

use sqlx::PgConnection;

use crate::error::Result;

/// The leader of the game: the player that reached the highest balance ever. New leaders are announced only for ledger
/// rows whose number (`seq`) is greater than `since`.
pub(super) struct LeaderRow {
    pub player: Option<String>,
    pub balance: i64,
    pub since: i64,
}

/// Returns the leader of the game, and locks its row until the transaction ends. Each book (a part of the ledger) is
/// read by its own task, and the lock keeps the other tasks from changing the leader in the meantime.
pub(super) async fn lock_leader(db: &mut PgConnection) -> Result<LeaderRow> {
    let row =
        sqlx::query_as!(LeaderRow, "select player, balance, since from game_leader for update");
    Ok(row.fetch_one(db).await?)
}

pub(super) async fn set_leader(db: &mut PgConnection, player: &str, balance: i64) -> Result<()> {
    sqlx::query!("update game_leader set player = $1, balance = $2", player, balance)
        .execute(db)
        .await?;
    Ok(())
}
