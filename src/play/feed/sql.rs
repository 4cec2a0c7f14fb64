//! Statements of the feeds: the players behind wallets.

use sqlx::PgConnection;

use super::raise::Raise;
use crate::error::Result;
use crate::ids::{TransferId, UserId, WalletId};

/// The player behind a main wallet.
pub(in crate::play) struct PlayerRow {
    pub wallet: WalletId,
    pub player: String,
    pub currency: String,
    pub app_user: Option<UserId>,
    /// Whether the user has a password; otherwise the player is a guest.
    pub is_registered: bool,
}

/// The players behind these wallets; wallets that never were main wallets are left out.
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

/// The raises after `after`, up to `end`; if there are no players, no transfer is read. The wallet of a transfer is
/// always found by its key, regardless of the planner's statistics.
pub(super) async fn raises(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    end: i64,
    limit: i64,
) -> sqlx::Result<Vec<Raise>> {
    let rows = sqlx::query_as!(
        Raise,
        r#"
        select t.seq, t.seq - t.leg as "transfer!: TransferId", t.trace_id, w.id as "wallet!: WalletId", w.player as "player!",
            w.currency as "currency!", t.credit_balance + coalesce(h.balance, 0) as "balance!"
        from ledger.transfer t
        cross join lateral (select id, player, currency from wallet where id = t.credit offset 0) w
        left join lateral (
            select case when last.credit = -(1::bigint << 40) - t.credit then last.credit_balance else last.debit_balance end as balance
            from (
                (select seq, credit, credit_balance, debit_balance from ledger.transfer
                where book = $1 and credit = -(1::bigint << 40) - t.credit and seq <= t.seq
                order by credit desc, book desc, seq desc limit 1)
                union all
                (select seq, credit, credit_balance, debit_balance from ledger.transfer
                where book = $1 and debit = -(1::bigint << 40) - t.credit and seq <= t.seq
                order by debit desc, book desc, seq desc limit 1)
            ) last
            order by last.seq desc limit 1
        ) h on true
        where t.book = $1 and t.seq > $2 and t.seq <= $3 and t.amount > 0 and t.credit > 0
            and t.debit <> -(1::bigint << 40) - t.credit and w.player is not null
            and (select exists (select from wallet where player is not null))
        order by t.seq
        limit $4"#,
        book,
        after,
        end,
        limit,
    );
    rows.fetch_all(db).await
}
