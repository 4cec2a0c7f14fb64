//! SQL statements that find the owners of main wallets, and the transfers that increase their balances (raises).

use sqlx::PgConnection;

use super::raise::Raise;
use crate::error::Result;
use crate::ids::{TransferId, UserId, WalletId};

/// The player that owns a main wallet, as stored in the database.
pub(in crate::play) struct PlayerRow {
    pub wallet: WalletId,
    pub player: String,
    pub currency: String,
    pub app_user: Option<UserId>,
    /// Whether the user has a password; otherwise the player is a guest.
    pub is_registered: bool,
}

/// Finds the players that own the given wallets. Leaves out wallets that have never been main wallets.
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

/// Returns all main wallets of a player in a currency, including closed wallets.
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

/// Returns, for each player and currency, the first transfer that reached the player's highest balance between two
/// positions of the ledger. Returns at most `limit` transfers, in the order of the ledger.
pub(super) async fn highest_raises(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    end: i64,
    limit: i64,
) -> sqlx::Result<Vec<Raise>> {
    let rows = sqlx::query_as!(
        Raise,
        r#"
        select seq as "seq!", transfer as "transfer!: TransferId", trace_id, wallet as "wallet!: WalletId",
            player as "player!", currency as "currency!", balance as "balance!"
        from (
            select distinct on (player, currency) *
            from raises($1, $2, $3)
            order by player, currency, balance desc, seq
        ) highest
        order by seq
        limit $4"#,
        book,
        after,
        end,
        limit,
    );
    rows.fetch_all(db).await
}

/// Returns the transfers, between two positions of the ledger, that raised a player's balance above the record in the
/// table `game_leader`. Returns at most `limit` transfers, in the order of the ledger.
pub(super) async fn leading_raises(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    end: i64,
    limit: i64,
) -> sqlx::Result<Vec<Raise>> {
    let rows = sqlx::query_as!(
        Raise,
        r#"
        select seq as "seq!", transfer as "transfer!: TransferId", trace_id, wallet as "wallet!: WalletId",
            player as "player!", currency as "currency!", balance as "balance!"
        from raises($1, $2, $3)
        where balance > (select balance from game_leader)
        order by seq
        limit $4"#,
        book,
        after,
        end,
        limit,
    );
    rows.fetch_all(db).await
}
