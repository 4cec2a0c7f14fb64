//! SQL statements on the libraries of users.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::LibraryEntry;
use crate::error::Result;
use crate::ids::{GameId, UserId};

pub(super) async fn library(
    db: &mut PgConnection,
    user: UserId,
    after: Option<GameId>,
    limit: i64,
) -> Result<Vec<LibraryEntry>> {
    let rows = sqlx::query_as!(
        LibraryEntry,
        r#"select g.id as "game: GameId", title, genre, description, base as "base: GameId", e.at as acquired_at
        from entitlement e join game g on g.id = e.game
        where e.app_user = $1 and e.game > $2
        order by e.game limit $3"#,
        user.0,
        after.map_or(0, |id| id.0),
        limit,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Ownership of a game by a user, and the user who acts for the publisher of the game. `owned_since` is `None` if the
/// user does not own the game.
pub(super) struct Ownership {
    pub publisher_user: Option<UserId>,
    pub owned_since: Option<OffsetDateTime>,
    pub position: String,
}

pub(super) async fn owner(
    db: &mut PgConnection,
    game: GameId,
    user: UserId,
) -> Result<Option<Ownership>> {
    let row = sqlx::query_as!(
        Ownership,
        r#"select b.app_user as "publisher_user?: UserId", e.at as "owned_since?",
            ledger.position() as "position!"
        from game g
        left join publisher b on b.id = g.publisher
        left join entitlement e on e.game = g.id and e.app_user = $2
        where g.id = $1 and state <> 'deleted'"#,
        game.0,
        user.0,
    );
    Ok(row.fetch_optional(db).await?)
}
