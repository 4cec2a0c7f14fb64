//! Adds games to the catalog: a single game on request, or many games in an import.

use std::iter;

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::change::{PublicChange, require_change};
use super::{Copies, Game, GameState, ListedPrice, Price, sql};
use crate::auth::Caller;
use crate::error::{Error, FieldError, Result};
use crate::games::sql::publisher_user;
use crate::games::{Games, require_manager};
use crate::idempotency_key::{HashedKey, IdempotencyKey};
use crate::ids::{GameId, PublisherId};
use crate::realtime::publish_all;

/// Error text for a publisher that does not exist.
pub(in crate::games) const NOT_A_PUBLISHER: &str = "is not a publisher";

/// Error text for a game that cannot be the base of downloadable content.
pub(in crate::games) const NOT_A_BASE: &str = "is not a game of this publisher that can be a base";

/// A game to add to the catalog.
#[derive(Debug, Clone)]
pub struct NewGame {
    pub title: String,
    pub genre: String,
    pub description: String,
    pub price: Price,
    pub prices: Vec<Price>,
    pub publisher: Option<PublisherId>,
    pub state: GameState,
    pub base: Option<GameId>,
    pub copies: Option<i32>,
    /// Whether the request sets only the title, genre, price and description.
    pub is_plain: bool,
}

/// A game that this request, or an earlier request with the same idempotency key, has added.
#[derive(Debug)]
pub struct AddedGame {
    pub id: GameId,
    pub title: String,
    pub replayed: bool,
}

impl NewGame {
    /// Returns the fields of the new game as texts. Their hash is stored with the idempotency key, to detect a client
    /// that reuses the key for a different game.
    pub(in crate::games) fn content(&self) -> Vec<String> {
        let price = |price: &Price| format!("{} {}", price.amount.0, price.currency.code());
        let prices: Vec<String> = self.prices.iter().map(price).collect();
        let mut content = vec![self.title.clone(), self.genre.clone(), self.description.clone()];
        content.push(price(&self.price));
        content.push(prices.join(","));
        content.push(self.publisher.map(|id| id.to_string()).unwrap_or_default());
        content.push(self.state.name().to_owned());
        content.push(self.base.map(|id| id.to_string()).unwrap_or_default());
        content.push(self.copies.map(|copies| copies.to_string()).unwrap_or_default());
        content
    }

    /// Returns the game as it is just after it was added, before any sale lowers its prices.
    fn with_id(&self, id: GameId) -> Game {
        let mut further = self.prices.clone();
        further.sort_by_key(|price| price.currency.code().to_owned());
        let prices = iter::once(self.price).chain(further);
        Game {
            id,
            title: self.title.clone(),
            genre: self.genre.clone(),
            description: self.description.clone(),
            price: self.price,
            prices: prices.map(|price| ListedPrice { price, sale: None }).collect(),
            publisher: self.publisher,
            publisher_user: None,
            state: self.state,
            base: self.base,
            copies: self.copies.map(|limit| Copies { limit, left: limit }),
        }
    }
}

/// A game to insert, and the idempotency key of the request (or of the imported record) that adds it.
pub(in crate::games) struct Insertion<'a> {
    pub game: &'a NewGame,
    pub key: Option<HashedKey>,
}

impl Games {
    /// Adds a game to the catalog, and publishes an event if the game is visible to buyers.
    pub async fn add(
        &self,
        new: &NewGame,
        caller: &Caller,
        key: &IdempotencyKey,
        trace: Uuid,
    ) -> Result<AddedGame> {
        let mut db = self.db.acquire("games.add").await?;
        let user = match new.publisher {
            Some(publisher) => publisher_user(&mut db, publisher).await?,
            None => None,
        };
        if new.publisher.is_some() && user.is_none() {
            // Only callers that may manage all games learn that the publisher does not exist.
            require_manager(caller, None)?;
            return Err(invalid("/publisher", NOT_A_PUBLISHER));
        }
        require_change(caller, user, new.is_plain)?;
        let content = new.content();
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let key = key.hashed(caller.name(), "game", &content);
        let mut tx = db.begin().await?;
        if let Some(key) = key
            && let Some(id) = find_replay(&mut tx, key).await?
        {
            return Ok(AddedGame { id, title: new.title.clone(), replayed: true });
        }
        sql::bump_revision(&mut tx).await?;
        if let Some(base) = new.base {
            let bases = sql::bases(&mut tx, &[base]).await?;
            if bases.get(&base) != Some(&new.publisher) {
                return Err(invalid("/base", NOT_A_BASE));
            }
        }
        let inserted = insert_all(&mut tx, &[Insertion { game: new, key }], Some(trace)).await?;
        let Some(&[id]) = inserted.as_deref() else {
            // If no row was inserted, a concurrent duplicate of this request has added the game.
            let key = key.ok_or(Error::Overloaded)?;
            let id = find_replay(&mut tx, key).await?.ok_or(Error::Overloaded)?;
            return Ok(AddedGame { id, title: new.title.clone(), replayed: true });
        };
        tx.commit().await?;
        self.changed("added");
        Ok(AddedGame { id, title: new.title.clone(), replayed: false })
    }
}

/// Inserts games and publishes events about them. The caller must have locked the catalog in this transaction. Returns
/// `None` if an idempotency key was used already; the caller must then not commit the transaction.
pub(in crate::games) async fn insert_all(
    db: &mut PgConnection,
    insertions: &[Insertion<'_>],
    trace: Option<Uuid>,
) -> Result<Option<Vec<GameId>>> {
    let ids = sql::insert_all(db, insertions).await?;
    if ids.len() < insertions.len() {
        return Ok(None);
    }
    let added = ids.iter().zip(insertions);
    let changes = added.filter_map(|(id, Insertion { game, .. })| {
        PublicChange::new(&game.with_id(*id), None, Some(game.state)).transpose()
    });
    let changes = changes.collect::<Result<Vec<_>>>()?;
    let events: Vec<_> = changes.iter().map(|change| change.event(trace)).collect();
    publish_all(db, &events).await?;
    Ok(Some(ids))
}

async fn find_replay(db: &mut PgConnection, key: HashedKey) -> Result<Option<GameId>> {
    let found = sql::find_by_keys(db, &[key.hash]).await?;
    let Some(found) = found.get(&key.hash) else { return Ok(None) };
    key.require_same_content(found.content)?;
    Ok(Some(found.id))
}

fn invalid(pointer: &str, detail: &str) -> Error {
    let (pointer, detail) = (pointer.to_owned(), detail.to_owned());
    Error::InvalidGame(vec![FieldError { pointer, detail }])
}
