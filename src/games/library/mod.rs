//! Libraries of users: the games that a user owns.

mod sql;

use time::OffsetDateTime;

use crate::auth::{Caller, Scope};
use crate::db::position;
use crate::error::{Error, Result};
use crate::games::{Games, require_manager};
use crate::ids::{GameId, UserId};

/// A game in a library.
#[derive(Debug)]
pub struct LibraryEntry {
    pub game: GameId,
    pub title: String,
    pub genre: String,
    pub description: String,
    pub base: Option<GameId>,
    pub acquired_at: OffsetDateTime,
}

impl Games {
    /// Returns a page of the games that a user owns, sorted by id.
    pub async fn library(
        &self,
        user: UserId,
        after: Option<GameId>,
        limit: i64,
        caller: &Caller,
    ) -> Result<Vec<LibraryEntry>> {
        caller.require_user_or_scope(user, Scope::GamesRead)?;
        let mut db = self.db.snapshot("games.library").await?;
        sql::library(&mut db, user, after, limit).await
    }

    /// Returns the time at which a user acquired a game. Returns an error with status 404 if the user does not own the
    /// game.
    pub async fn owned_since(
        &self,
        game: GameId,
        user: UserId,
        caller: &Caller,
    ) -> Result<OffsetDateTime> {
        let mut db = self.db.read("games.owner").await?;
        let found = sql::owner(&mut db, game, user).await?;
        drop(db);
        let publisher_user = found.as_ref().and_then(|found| found.publisher_user);
        let is_of_publisher = publisher_user.is_some_and(|publisher| {
            caller.require_owner_or_scope(publisher, Scope::GamesRead).is_ok()
        });
        if !is_of_publisher && require_manager(caller, publisher_user).is_err() {
            caller.require_user_or_scope(user, Scope::GamesRead)?;
        }
        // A draft has no owners, so the response does not reveal whether a game is a draft or does not exist.
        let found = found.ok_or(Error::NotFound("owner of this game"))?;
        position::note_read(found.position);
        found.owned_since.ok_or(Error::NotFound("owner of this game"))
    }
}
