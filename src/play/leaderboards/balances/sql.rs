//! Statements of the leaderboard of balances.

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::{SeasonId, UserId};
use crate::wallet::main_wallet::Player;

/// A balance that a player's main wallet reached.
pub(super) struct ReachedRow {
    pub player: String,
    pub currency: String,
    pub balance: i64,
}

/// Balances, held money included, of those accounts that are main wallets, right after these transfers.
pub(super) async fn reached(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    seqs: &[i64],
) -> Result<Vec<ReachedRow>> {
    let rows = sqlx::query_as!(
        ReachedRow,
        r#"
        select w.player as "player!", w.currency as "currency!", t.credit_balance + coalesce(h.balance, 0) as "balance!"
        from unnest($2::bigint[], $3::bigint[]) with ordinality as c (account, seq, n)
        join wallet w on w.id = c.account and w.player is not null
        join ledger.transfer t on t.book = $1 and t.seq = c.seq
        left join lateral (
            select case when last.credit = -(1::bigint << 40) - c.account then last.credit_balance else last.debit_balance end as balance
            from (
                (select seq, credit, credit_balance, debit_balance from ledger.transfer
                where book = $1 and credit = -(1::bigint << 40) - c.account and seq <= c.seq
                order by credit desc, book desc, seq desc limit 1)
                union all
                (select seq, credit, credit_balance, debit_balance from ledger.transfer
                where book = $1 and debit = -(1::bigint << 40) - c.account and seq <= c.seq
                order by debit desc, book desc, seq desc limit 1)
            ) last
            order by last.seq desc limit 1
        ) h on true
        order by c.n"#,
        book,
        accounts,
        seqs,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Records balances that players reached, in this order.
pub(super) async fn record(
    db: &mut PgConnection,
    currency: &str,
    owners: &[String],
    balances: &[i64],
) -> Result<()> {
    sqlx::query!("select leaderboard_record($1, $2, $3)::text as done", currency, owners, balances)
        .fetch_one(db)
        .await?;
    Ok(())
}

/// The season of the board of a currency; `None` before the first balance.
pub(super) async fn season(db: &mut PgConnection, currency: &str) -> Result<Option<SeasonId>> {
    let id = sqlx::query_scalar!(
        r#"select s.id as "id: SeasonId"
        from leaderboard b join leaderboard_season s on s.board = b.id
        where b.name = '$' || $1::text and b.deleted_at is null and s.ended_at is null"#,
        currency
    );
    Ok(id.fetch_optional(db).await?)
}

/// The holders of these player ids.
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
