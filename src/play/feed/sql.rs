//! Statements of the feeds: the players behind wallets.

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::{UserId, WalletId};

/// The player behind a main wallet.
pub(in crate::play) struct PlayerRow {
    pub wallet: WalletId,
    pub player: String,
    pub currency: String,
    pub app_user: Option<UserId>,
    /// Whether the user has a password; otherwise the player is a guest.
    pub is_registered: bool,
}

/// The players behind those of these wallets that are or were main wallets.
pub(super) async fn players(db: &mut PgConnection, wallets: &[i64]) -> Result<Vec<PlayerRow>> {
    let rows = sqlx::query_as!(
        PlayerRow,
        r#"
        select w.id as "wallet!: WalletId", w.player as "player!", w.currency as "currency!", w.app_user as "app_user: UserId",
            coalesce(u.password_hash is not null, false) as "is_registered!"
        from wallet w
        left join app_user u on u.id = w.app_user
        where w.id = any ($1) and w.player is not null"#,
        wallets,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Every main wallet that a player has, or had, in a currency.
pub(super) async fn main_wallets(
    db: &mut PgConnection,
    player: &str,
    currency: &str,
) -> Result<Vec<WalletId>> {
    let rows = sqlx::query_scalar!(
        r#"select id as "id!: WalletId" from wallet where player = $1 and currency = $2"#,
        player,
        currency,
    );
    Ok(rows.fetch_all(db).await?)
}
