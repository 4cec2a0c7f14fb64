//! Statements of pages and ranks.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Result;
use crate::ids::SeasonId;

/// An entry with its rank.
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

/// A page of a season that begins after a place, or ends before it if `is_backward`, in the order of the ranks.
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

/// The entry of an owner and its neighbors, in the order of the ranks.
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
