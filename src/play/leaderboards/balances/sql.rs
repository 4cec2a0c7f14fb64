//! SQL statements of the leaderboard of balances.

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::{SeasonId, UserId};
use crate::wallet::main_wallet::Player;

/// Records the balances that players reached in a currency, in the given order.
pub(super) async fn record(
    db: &mut PgConnection,
    currency: &str,
    owners: &[&str],
    balances: &[i64],
) -> Result<()> {
    sqlx::query!(
        "select leaderboard_record($1, $2, $3)::text as done",
        currency,
        owners as &[&str],
        balances
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// Returns the current season of a currency's leaderboard of balances; `None` if no balance in the currency has been
/// recorded.
pub(super) async fn season(db: &mut PgConnection, currency: &str) -> Result<Option<SeasonId>> {
    let id = sqlx::query_scalar!(
        r#"select s.id as "id: SeasonId"
        from leaderboard b join leaderboard_season s on s.board = b.id
        where b.name = '$' || $1::text and b.deleted_at is null and s.ended_at is null"#,
        currency
    );
    Ok(id.fetch_optional(db).await?)
}

/// Finds the users and guests to which the given player ids belong.
pub(super) async fn players(
    db: &mut PgConnection,
    ids: &[String],
) -> Result<Vec<(String, Player)>> {
    let rows = sqlx::query!(
        r#"select p.id as "id!", p.app_user, u.password_hash is not null as "has_password!"
        from player p left join app_user u on u.id = p.app_user
        where p.id = any ($1)"#,
        ids
    );
    let rows = rows.fetch_all(db).await?.into_iter();
    Ok(rows
        .map(|row| {
            let player = match row.app_user.map(UserId) {
                Some(user) if row.has_password => Player::User(user),
                Some(user) => Player::PasswordlessUser(user),
                None => Player::Guest,
            };
            (row.id, player)
        })
        .collect())
}
