//! SQL statements on prizes of leaderboards.

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::{LeaderboardId, SeasonId};
use crate::ledger::companion::CompanionKind;

/// Statement that marks a prize as paid, if the prize is still due. It runs in the same transaction as the ledger
/// posting that pays the prize. The input `first` is the index, within the posting, of the movement of money (leg) that
/// pays the prize.
pub static PRIZE_PAID: CompanionKind = CompanionKind {
    name: "leaderboard.prize_paid",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json)
        as (n int, seq bigint, first int, season bigint, rank int, currency text)
), done as (
    update public.leaderboard_prize p
    set state = 'paid', transfer = i.seq + i.first, settled_at = now()
    from input i
    where p.season = i.season and p.rank = i.rank and p.currency = i.currency and p.state = 'due'
    returning p.season, p.rank, p.currency
), took as (
    select n from input join done using (season, rank, currency)
)",
};

/// A prize of a season that has ended.
pub(in crate::play::leaderboards) struct PrizeRow {
    pub season: SeasonId,
    pub rank: i32,
    pub owner: String,
    pub currency: String,
    pub amount: i64,
    pub state: String,
    pub reason: Option<String>,
    pub transfer: Option<i64>,
}

/// Returns the prizes that the players at the given ranks have won in a season.
pub(in crate::play::leaderboards) async fn of_ranks(
    db: &mut PgConnection,
    season: SeasonId,
    ranks: &[i32],
) -> Result<Vec<PrizeRow>> {
    let rows = sqlx::query_as!(
        PrizeRow,
        r#"select season as "season: SeasonId", rank, owner, currency, amount, state, reason, transfer
        from leaderboard_prize where season = $1 and rank = any ($2)
        order by rank, currency"#,
        season.0,
        ranks
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns at most `limit` due prizes of a season, best rank first.
pub(super) async fn due(
    db: &mut PgConnection,
    season: SeasonId,
    limit: i64,
) -> Result<Vec<PrizeRow>> {
    let rows = sqlx::query_as!(
        PrizeRow,
        r#"select season as "season: SeasonId", rank, owner, currency, amount, state, reason, transfer
        from leaderboard_prize where season = $1 and state <> 'paid' and state = 'due'
        order by rank, currency limit $2"#,
        season.0,
        limit
    );
    Ok(rows.fetch_all(db).await?)
}

/// Marks a due prize as unpaid, with the reason. Returns `false` if the prize is no longer due.
pub(super) async fn mark_unpaid(
    db: &mut PgConnection,
    season: SeasonId,
    rank: i32,
    currency: &str,
    reason: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        "update leaderboard_prize set state = 'unpaid', reason = $4, settled_at = now()
        where season = $1 and rank = $2 and currency = $3 and state = 'due'",
        season.0,
        rank,
        currency,
        reason
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Marks the unpaid prizes of a leaderboard as due again. Returns the season of each prize.
pub(super) async fn retry(db: &mut PgConnection, board: LeaderboardId) -> Result<Vec<SeasonId>> {
    let seasons = sqlx::query_scalar!(
        r#"update leaderboard_prize p set state = 'due', reason = null, settled_at = null
        from leaderboard_season s
        where s.id = p.season and s.board = $1 and p.state = 'unpaid'
        returning p.season as "season: SeasonId""#,
        board.0
    );
    Ok(seasons.fetch_all(db).await?)
}
