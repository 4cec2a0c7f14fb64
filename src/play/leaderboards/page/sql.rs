//! SQL statements that read pages and ranks of leaderboards.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Result;
use crate::ids::SeasonId;

/// An entry of a leaderboard with its rank, as the database returns it.
pub(super) struct EntryRow {
    pub rank: i64,
    pub place: Vec<u8>,
    pub owner: String,
    pub score: i64,
    pub subscore: i64,
    pub metadata: Option<String>,
    pub submissions: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// Returns a page of a season's entries, best rank first. `place` is the sort key of an entry: the page begins after
/// this entry or, if `is_backward` is true, ends before this entry. An empty `place` means the first page.
pub(super) async fn page(
    db: &mut PgConnection,
    season: SeasonId,
    place: &[u8],
    is_backward: bool,
    limit: i64,
) -> Result<Vec<EntryRow>> {
    let rows = sqlx::query_as!(
        EntryRow,
        r#"select rank as "rank!", place as "place!", owner as "owner!", score as "score!", subscore as "subscore!",
            metadata, submissions as "submissions!", created_at as "created_at!", updated_at as "updated_at!"
        from leaderboard_page($1, $2, $3, $4)"#,
        season.0,
        place,
        is_backward,
        limit
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns the entry of a player and the neighbors of this entry, best rank first.
pub(super) async fn around(
    db: &mut PgConnection,
    season: SeasonId,
    owner: &str,
    around: i64,
) -> Result<Vec<EntryRow>> {
    let rows = sqlx::query_as!(
        EntryRow,
        r#"select rank as "rank!", place as "place!", owner as "owner!", score as "score!", subscore as "subscore!",
            metadata, submissions as "submissions!", created_at as "created_at!", updated_at as "updated_at!"
        from leaderboard_around($1, $2, $3)"#,
        season.0,
        owner,
        around
    );
    Ok(rows.fetch_all(db).await?)
}
