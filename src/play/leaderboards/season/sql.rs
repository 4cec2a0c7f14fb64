//! SQL statements that end a season, and remove a deleted leaderboard.

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::{LeaderboardId, SeasonId};

/// Maximum number of entries that a single statement removes from a deleted leaderboard. The limit keeps the
/// transaction short.
const PURGED_MAX: i64 = 5_000;

/// Values of the gauge metrics: the numbers of leaderboards, due prizes and unpaid prizes, and the number of seconds
/// since the end of the most overdue season.
pub(super) struct StateRow {
    pub boards: i64,
    pub due: i64,
    pub unpaid: i64,
    pub overdue_seconds: f64,
}

/// A leaderboard, and the number of seconds until its season should end; negative if that time has passed.
pub(super) struct SeasonEnd {
    pub board: LeaderboardId,
    pub seconds: f64,
}

/// Returns at most `limit` running seasons that have a scheduled end, earliest end first. Seasons past their end are
/// included.
pub(super) async fn next_ends(db: &mut PgConnection, limit: i64) -> Result<Vec<SeasonEnd>> {
    let ends = sqlx::query_as!(
        SeasonEnd,
        r#"select board as "board: LeaderboardId",
            extract(epoch from ends_at - leaderboard_now())::float8 as "seconds!"
        from leaderboard_season
        where ended_at is null and ends_at is not null
        order by ends_at limit $1"#,
        limit
    );
    Ok(ends.fetch_all(db).await?)
}

/// Returns whether the current season of a leaderboard is past its end.
pub(super) async fn is_due(db: &mut PgConnection, board: LeaderboardId) -> Result<bool> {
    let is_due = sqlx::query_scalar!(
        r#"select exists (
            select from leaderboard_season where board = $1 and ended_at is null and ends_at <= leaderboard_now()
        ) as "is_due!""#,
        board.0
    );
    Ok(is_due.fetch_one(db).await?)
}

pub(super) async fn end_season(db: &mut PgConnection, season: SeasonId) -> Result<()> {
    sqlx::query!(
        "update leaderboard_season set ended_at = leaderboard_now() where id = $1 and ended_at is null",
        season.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Records the winners of the prizes of a season that has just ended. Returns the number of prizes.
pub(super) async fn fix_prizes(db: &mut PgConnection, season: SeasonId) -> Result<u64> {
    let done = sqlx::query!(
        "with rules as materialized (
            select r.rank, r.currency, r.amount
            from leaderboard_season s
            cross join lateral json_to_recordset(s.prizes) as r (rank int, currency text, amount bigint)
            where s.id = $1
        )
        insert into leaderboard_prize (season, rank, owner, currency, amount)
        select $1, r.rank, w.owner, r.currency, r.amount
        from rules r
        join leaderboard_page($1, '', false, (select coalesce(max(rank), 0) from rules)) w on w.rank = r.rank",
        season.0
    );
    Ok(done.execute(db).await?.rows_affected())
}

/// Returns the values of the gauge metrics of leaderboards, seasons and prizes.
pub(super) async fn state(db: &mut PgConnection) -> Result<StateRow> {
    let row = sqlx::query_as!(
        StateRow,
        r#"select
            (select count(*) from leaderboard where deleted_at is null and not builtin) as "boards!",
            (select count(*) from leaderboard_prize where state <> 'paid' and state = 'due') as "due!",
            (select count(*) from leaderboard_prize where state <> 'paid' and state = 'unpaid') as "unpaid!",
            coalesce((
                select extract(epoch from leaderboard_now() - min(ends_at))
                from leaderboard_season
                where ended_at is null and ends_at <= leaderboard_now()
            ), 0)::float8 as "overdue_seconds!""#
    );
    Ok(row.fetch_one(db).await?)
}

pub(super) async fn seasons_with_due_prizes(
    db: &mut PgConnection,
    limit: i64,
) -> Result<Vec<SeasonId>> {
    let ids = sqlx::query_scalar!(
        r#"select distinct season as "season: SeasonId" from leaderboard_prize
        where state <> 'paid' and state = 'due'
        order by 1 limit $1"#,
        limit
    );
    Ok(ids.fetch_all(db).await?)
}

/// Deletes up to `limit` idempotency keys of score submissions that are older than `seconds`. Returns the number of
/// deleted keys.
pub(super) async fn remove_keys(db: &mut PgConnection, seconds: f64, limit: i64) -> Result<i64> {
    let removed = sqlx::query!(
        "delete from leaderboard_key
        where key_hash in (
            select key_hash from leaderboard_key
            where at < now() - make_interval(secs => $1)
            order by at limit $2
        )",
        seconds,
        limit
    )
    .execute(db)
    .await?;
    Ok(i64::try_from(removed.rows_affected()).unwrap_or(i64::MAX))
}

/// Returns whether any prize of a leaderboard is still due.
pub(super) async fn has_due_prizes(db: &mut PgConnection, board: LeaderboardId) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (
            select from leaderboard_season s join leaderboard_prize p on p.season = s.id
            where s.board = $1 and p.state = 'due'
        ) as "exists!""#,
        board.0
    );
    Ok(exists.fetch_one(db).await?)
}

/// Removes a limited number of entries of a deleted leaderboard. Returns the number of removed entries.
pub(super) async fn purge_entries(db: &mut PgConnection, board: LeaderboardId) -> Result<u64> {
    let done = sqlx::query!(
        "delete from leaderboard_entry
        where ctid = any (array(
            select e.ctid
            from leaderboard b
            join leaderboard_season s on s.board = b.id
            join leaderboard_entry e on e.season = s.id
            where b.id = $1 and b.deleted_at is not null
            limit $2
        ))",
        board.0,
        PURGED_MAX
    );
    Ok(done.execute(db).await?.rows_affected())
}

/// Removes a deleted leaderboard that has no entries left, with its seasons and prizes.
pub(super) async fn purge_board(db: &mut PgConnection, board: LeaderboardId) -> Result<()> {
    sqlx::query!(
        "delete from leaderboard_bucket where season in (select id from leaderboard_season where board = $1)",
        board.0
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from leaderboard_prize where season in (select id from leaderboard_season where board = $1)",
        board.0
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from leaderboard_season where board = $1", board.0)
        .execute(&mut *db)
        .await?;
    sqlx::query!("delete from leaderboard where id = $1 and deleted_at is not null", board.0)
        .execute(&mut *db)
        .await?;
    Ok(())
}
