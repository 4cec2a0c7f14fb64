//! SQL statements on leaderboards and their seasons. Before a statement changes a leaderboard or its season, the caller
//! must lock the leaderboard with [`lock_board`].

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::board::{BoardSettings, StoredPrizeRule};
use crate::error::{Error, Result};
use crate::ids::{LeaderboardId, SeasonId};

/// Row of the table `leaderboard`.
pub(super) struct BoardRow {
    pub id: LeaderboardId,
    pub name: String,
    pub created_at: OffsetDateTime,
    pub ascending: bool,
    pub operator: String,
    pub reset: Option<String>,
    pub time_zone: String,
    pub ends_at: Option<OffsetDateTime>,
    pub prizes: String,
}

/// Row of the table `leaderboard_season`.
pub(super) struct SeasonRow {
    pub id: SeasonId,
    pub number: i32,
    pub starts_at: OffsetDateTime,
    pub ends_at: Option<OffsetDateTime>,
    pub ended_at: Option<OffsetDateTime>,
    pub prizes: String,
}

/// Returns the prize rules as the JSON text that the database stores.
fn stored_rules(settings: &BoardSettings) -> Result<String> {
    let rules: Vec<StoredPrizeRule> = settings.prizes.iter().map(StoredPrizeRule::from).collect();
    serde_json::to_string(&rules).map_err(|cause| Error::Internal(cause.into()))
}

/// Returns the current time of the database clock, which decides when seasons begin and end.
pub(super) async fn now(db: &mut PgConnection) -> Result<OffsetDateTime> {
    Ok(sqlx::query_scalar!(r#"select leaderboard_now() as "now!""#).fetch_one(db).await?)
}

/// Takes a lock and holds it until the transaction ends, so that only a single transaction at a time creates
/// leaderboards or changes their settings.
pub(super) async fn lock_names(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('leaderboard names', 0))")
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn count_boards(db: &mut PgConnection) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from leaderboard where deleted_at is null and not builtin"#
    );
    Ok(count.fetch_one(db).await?)
}

/// Finds the leaderboard with the given name.
pub(super) async fn find_board(db: &mut PgConnection, name: &str) -> Result<Option<BoardRow>> {
    let row = sqlx::query_as!(
        BoardRow,
        r#"select id as "id: LeaderboardId", name, created_at, ascending, operator, reset, time_zone, ends_at,
            prizes::text as "prizes!"
        from leaderboard where name = $1 and deleted_at is null"#,
        name
    );
    Ok(row.fetch_optional(db).await?)
}

/// Locks a leaderboard until the transaction ends. Other transactions that change the leaderboard or its season wait.
pub(super) async fn lock_board(
    db: &mut PgConnection,
    id: LeaderboardId,
) -> Result<Option<BoardRow>> {
    let row = sqlx::query_as!(
        BoardRow,
        r#"select id as "id: LeaderboardId", name, created_at, ascending, operator, reset, time_zone, ends_at,
            prizes::text as "prizes!"
        from leaderboard where id = $1 and deleted_at is null
        for no key update"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns at most `limit` leaderboards, sorted by name, beginning after the name `after`.
pub(super) async fn list_boards(
    db: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<BoardRow>> {
    let rows = sqlx::query_as!(
        BoardRow,
        r#"select id as "id: LeaderboardId", name, created_at, ascending, operator, reset, time_zone, ends_at,
            prizes::text as "prizes!"
        from leaderboard where name > $1 and deleted_at is null and not builtin
        order by name limit $2"#,
        after,
        limit
    );
    Ok(rows.fetch_all(db).await?)
}

pub(super) async fn create_board(
    db: &mut PgConnection,
    name: &str,
    settings: &BoardSettings,
) -> Result<BoardRow> {
    let row = sqlx::query_as!(
        BoardRow,
        r#"insert into leaderboard (name, ascending, operator, reset, time_zone, ends_at, prizes)
        values ($1, $2, $3, $4, $5, $6, $7::text::json)
        returning id as "id: LeaderboardId", name, created_at, ascending, operator, reset, time_zone, ends_at,
            prizes::text as "prizes!""#,
        name,
        settings.order.is_ascending(),
        settings.operator.name(),
        settings.schedule.reset,
        settings.schedule.time_zone.name(),
        settings.schedule.ends_at,
        stored_rules(settings)?,
    );
    Ok(row.fetch_one(db).await?)
}

pub(super) async fn change_board(
    db: &mut PgConnection,
    id: LeaderboardId,
    settings: &BoardSettings,
) -> Result<()> {
    sqlx::query!(
        "update leaderboard
        set ascending = $2, operator = $3, reset = $4, time_zone = $5, ends_at = $6, prizes = $7::text::json
        where id = $1",
        id.0,
        settings.order.is_ascending(),
        settings.operator.name(),
        settings.schedule.reset,
        settings.schedule.time_zone.name(),
        settings.schedule.ends_at,
        stored_rules(settings)?,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Marks a leaderboard as deleted, and ends its running season without prizes.
pub(super) async fn delete_board(db: &mut PgConnection, id: LeaderboardId) -> Result<()> {
    sqlx::query!(
        "with ended as (
            update leaderboard_season set ended_at = leaderboard_now() where board = $1 and ended_at is null
        )
        update leaderboard set deleted_at = now() where id = $1",
        id.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns whether any season of a leaderboard has an entry.
pub(super) async fn has_entries(db: &mut PgConnection, board: LeaderboardId) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (
            select from leaderboard_season s join leaderboard_bucket b on b.season = s.id
            where s.board = $1 and b.entries > 0
        ) as "exists!""#,
        board.0
    );
    Ok(exists.fetch_one(db).await?)
}

/// Begins the next season of a leaderboard, with the prizes from the leaderboard's current settings.
pub(super) async fn open_season(
    db: &mut PgConnection,
    board: LeaderboardId,
    starts_at: OffsetDateTime,
    ends_at: Option<OffsetDateTime>,
) -> Result<()> {
    sqlx::query!(
        "insert into leaderboard_season (board, number, starts_at, ends_at, prizes)
        select id, coalesce((select max(number) from leaderboard_season where board = $1), 0) + 1, $2, $3, prizes
        from leaderboard where id = $1",
        board.0,
        starts_at,
        ends_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn move_season_end(
    db: &mut PgConnection,
    season: SeasonId,
    ends_at: Option<OffsetDateTime>,
) -> Result<()> {
    sqlx::query!("update leaderboard_season set ends_at = $2 where id = $1", season.0, ends_at)
        .execute(db)
        .await?;
    Ok(())
}

/// Returns the running season of a leaderboard; `None` if all its seasons have ended.
pub(super) async fn current_season(
    db: &mut PgConnection,
    board: LeaderboardId,
) -> Result<Option<SeasonRow>> {
    let row = sqlx::query_as!(
        SeasonRow,
        r#"select id as "id: SeasonId", number, starts_at, ends_at, ended_at, prizes::text as "prizes!"
        from leaderboard_season where board = $1 and ended_at is null"#,
        board.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns the current season of a leaderboard, or the last season if no season is running.
pub(super) async fn latest_season(
    db: &mut PgConnection,
    board: LeaderboardId,
) -> Result<Option<SeasonRow>> {
    let row = sqlx::query_as!(
        SeasonRow,
        r#"select id as "id: SeasonId", number, starts_at, ends_at, ended_at, prizes::text as "prizes!"
        from leaderboard_season where board = $1 order by number desc limit 1"#,
        board.0
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn find_season(
    db: &mut PgConnection,
    board: LeaderboardId,
    number: i32,
) -> Result<Option<SeasonRow>> {
    let row = sqlx::query_as!(
        SeasonRow,
        r#"select id as "id: SeasonId", number, starts_at, ends_at, ended_at, prizes::text as "prizes!"
        from leaderboard_season where board = $1 and number = $2"#,
        board.0,
        number
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn find_season_by_id(
    db: &mut PgConnection,
    board: LeaderboardId,
    id: SeasonId,
) -> Result<Option<SeasonRow>> {
    let row = sqlx::query_as!(
        SeasonRow,
        r#"select id as "id: SeasonId", number, starts_at, ends_at, ended_at, prizes::text as "prizes!"
        from leaderboard_season where board = $1 and id = $2"#,
        board.0,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}
