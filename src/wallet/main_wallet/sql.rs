//! SQL statements for main wallets.

use sqlx::PgConnection;

use super::{MainWallet, Player};
use crate::error::Result;
use crate::ids::{PlayerId, UserId, WalletId};
use crate::ledger::companion::CompanionKind;
use crate::ledger::money::Minor;

/// Companion (a statement in the transaction of a posting) that inserts a main wallet when its ledger account is
/// opened, and claims the player id if the player is a new guest.
///
/// If a registration has taken the player id in the meantime, the companion inserts no wallet and claims nothing.
pub static OPENED_MAIN: CompanionKind = CompanionKind {
    name: "wallet.main_opened",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json)
        as (n int, id bigint, currency text, player text, app_user bigint)
), claimed as (
    insert into public.player as p (id)
    select distinct player from input where app_user is null order by player
    on conflict (id) do update set created_at = p.created_at where p.app_user is null
    returning p.id
), done as (
    insert into public.wallet (id, currency, owner, app_user, player, main)
    select id, currency, player, app_user, player, true
    from input
    where app_user is not null or player in (select claimed.id from claimed)
    order by player, currency
    on conflict do nothing
    returning id
), took as (
    select n from input join done using (id)
)",
};

/// Returns a player and the player's open main wallet in a currency; `None` for an unknown player id.
pub(super) async fn find_main(
    db: &mut PgConnection,
    player: &PlayerId,
    currency: &str,
) -> Result<Option<MainWallet>> {
    let row = sqlx::query!(
        r#"
        select p.app_user, u.password_hash is not null as "has_password!", w.id as "wallet?"
        from player p
        left join app_user u on u.id = p.app_user
        left join wallet w on w.player = p.id and w.currency = $2 and w.main and w.closed_at is null
        where p.id = $1"#,
        player.as_str(),
        currency,
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| main_wallet(row.app_user, row.has_password, row.wallet)))
}

/// A player, and the balance of the player's main wallet in a currency, with the position in the ledger at which the
/// balance was read.
pub(super) struct FoundBalance {
    pub main: MainWallet,
    pub balance: Minor,
    pub position: String,
}

pub(super) async fn main_balance(
    db: &mut PgConnection,
    player: &PlayerId,
    currency: &str,
) -> Result<Option<FoundBalance>> {
    let row = sqlx::query!(
        r#"
        select p.app_user, u.password_hash is not null as "has_password!", w.id as "wallet?",
            case when w.id is null then 0 else ledger.total_balance(ledger.book_of(w.id), w.id) end as "balance!",
            ledger.position() as "position!"
        from player p
        left join app_user u on u.id = p.app_user
        left join wallet w on w.player = p.id and w.currency = $2 and w.main and w.closed_at is null
        where p.id = $1"#,
        player.as_str(),
        currency,
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| FoundBalance {
        main: main_wallet(row.app_user, row.has_password, row.wallet),
        balance: Minor(row.balance),
        position: row.position,
    }))
}

fn main_wallet(app_user: Option<i64>, has_password: bool, wallet: Option<i64>) -> MainWallet {
    let player = match app_user.map(UserId) {
        Some(user) if has_password => Player::User(user),
        Some(user) => Player::PasswordlessUser(user),
        None => Player::Guest,
    };
    MainWallet { player, wallet: wallet.map(WalletId) }
}

/// Whether the player has a closed main wallet in a currency.
pub(super) async fn had_main(
    db: &mut PgConnection,
    player: &PlayerId,
    currency: &str,
) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (
            select from wallet where player = $1 and currency = $2 and closed_at is not null
        ) as "exists!""#,
        player.as_str(),
        currency,
    );
    Ok(exists.fetch_one(db).await?)
}
