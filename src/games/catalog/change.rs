//! Changes to games in the catalog: update, delete and retire.
//!
//! Each change is a transaction that also invalidates the cached lists and publishes an event.

use serde_json::value::{RawValue, to_raw_value};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::body::GameBody;
use super::list::words;
use super::{Game, GameState, Price, sql};
use crate::auth::{Access, Caller};
use crate::error::{Error, Result, StoreRefusal};
use crate::games::sql::{create_stock, set_quantity};
use crate::games::{Games, require_manager};
use crate::http::MoneyFormat;
use crate::ids::{GameId, PublisherId, UserId};
use crate::realtime::{Audience, NewEvent, publish};

/// Realtime topic on which changes to the catalog are published.
const TOPIC: &str = "game_updates";

/// New limit on the number of copies of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopiesChange {
    Limit(i32),
    Unlimited,
}

/// The fields of a game that a request changes; a field that is `None` stays unchanged.
#[derive(Debug, Clone, Default)]
pub struct GameChanges {
    pub title: Option<String>,
    pub genre: Option<String>,
    pub description: Option<String>,
    pub price: Option<Price>,
    /// Prices in currencies other than the main currency. The new list replaces the old list.
    pub prices: Option<Vec<Price>>,
    pub publisher: Option<PublisherId>,
    pub state: Option<GameState>,
    pub base: Option<GameId>,
    pub copies: Option<CopiesChange>,
    /// Whether the request changes only the title, genre, price or description.
    pub is_plain: bool,
}

/// Returns an error unless the caller may add, change or delete a game. `is_plain_house` is true if the game belongs to
/// the operator, is not a draft and was never sold, and the request sets only the title, genre, price or description. A
/// server with open access then requires no credential.
pub(super) fn require_change(
    caller: &Caller,
    user: Option<UserId>,
    is_plain_house: bool,
) -> Result<()> {
    if is_plain_house && caller.policy().access == Access::Open {
        return Ok(());
    }
    require_manager(caller, user)
}

/// Returns an error unless the caller may change this game. For a draft, the error says that the game does not exist,
/// which hides the draft from callers without permission.
async fn require_change_of(
    db: &mut PgConnection,
    id: GameId,
    is_plain: bool,
    caller: &Caller,
) -> Result<()> {
    let facts = sql::facts(db, id).await?.ok_or(StoreRefusal::GameNotFound)?;
    let is_draft = facts.state == GameState::Draft.name();
    let is_plain_house = is_plain && facts.publisher.is_none() && !facts.was_sold && !is_draft;
    match require_change(caller, facts.publisher_user, is_plain_house) {
        Err(_) if is_draft => Err(StoreRefusal::GameNotFound.into()),
        outcome => outcome,
    }
}

impl Games {
    /// Changes the fields of a game, and publishes an event if the game is visible to buyers.
    pub async fn update(
        &self,
        id: GameId,
        changes: &GameChanges,
        caller: &Caller,
        trace: Uuid,
    ) -> Result<()> {
        let mut db = self.db.acquire("games.update").await?;
        let mut tx = db.begin().await?;
        require_change_of(&mut tx, id, changes.is_plain, caller).await?;
        // If the game is about to get a limit on copies or become a draft, taking the lock waits for purchases in
        // progress.
        let stops_sales = matches!(changes.copies, Some(CopiesChange::Limit(_)))
            || changes.state == Some(GameState::Draft);
        let (game, before) = lock(&mut tx, id, stops_sales).await?;
        if game.was_sold {
            require_change(caller, game.publisher_user, false)?;
        }
        let shown = self.shown(&mut tx, id).await?;
        let fixed = [
            (
                changes.publisher.is_some() && changes.publisher != game.publisher,
                "the publisher of a game is fixed",
            ),
            (changes.base.is_some() && changes.base != game.base, "the base game is fixed"),
            (
                game.was_sold && changes.state == Some(GameState::Draft),
                "a game that was sold cannot become a draft again",
            ),
        ];
        if let Some((_, why)) = fixed.into_iter().find(|(differs, _)| *differs) {
            return Err(StoreRefusal::GameFixed(why).into());
        }
        let stock = match (changes.copies, game.stock) {
            (None, stock) => stock,
            (Some(CopiesChange::Unlimited), _) => None,
            (Some(CopiesChange::Limit(limit)), Some(stock)) => {
                set_quantity(&mut tx, stock, limit).await?;
                Some(stock)
            }
            (Some(CopiesChange::Limit(_)), None) if game.was_sold => {
                let why = "a game that was sold without a limit on copies cannot get a limit";
                return Err(StoreRefusal::GameFixed(why).into());
            }
            (Some(CopiesChange::Limit(limit)), None) => Some(create_stock(&mut tx, limit).await?),
        };
        let texts = [
            changes.title.as_deref().unwrap_or(&shown.title),
            changes.genre.as_deref().unwrap_or(&shown.genre),
            changes.description.as_deref().unwrap_or(&shown.description),
        ];
        sql::update(&mut tx, id, changes, &words(texts), stock).await?;
        if let Some(prices) = &changes.prices {
            set_prices(&mut tx, id, prices).await?;
        }
        sql::drop_price_in_main_currency(&mut tx, id).await?;
        let after = changes.state.unwrap_or(before);
        // If the game is not public after the change, its event shows the game before the change.
        let is_public = after == GameState::Published;
        let shown = if is_public { self.shown(&mut tx, id).await? } else { shown };
        publish_change(&mut tx, &shown, (Some(before), Some(after)), trace).await?;
        tx.commit().await?;
        self.changed("updated");
        Ok(())
    }

    /// Deletes a game. If the game was sold or has downloadable content, retires it instead, so that its owners keep
    /// it.
    pub async fn delete(&self, id: GameId, caller: &Caller, trace: Uuid) -> Result<()> {
        let mut db = self.db.acquire("games.delete").await?;
        let mut tx = db.begin().await?;
        require_change_of(&mut tx, id, true, caller).await?;
        let (game, before) = lock(&mut tx, id, true).await?;
        if game.was_sold {
            require_change(caller, game.publisher_user, false)?;
        }
        let is_kept = game.was_sold || sql::has_content(&mut tx, id).await?;
        let shown = self.shown(&mut tx, id).await?;
        publish_change(&mut tx, &shown, (Some(before), None), trace).await?;
        sql::set_state(&mut tx, id, if is_kept { "retired" } else { "deleted" }).await?;
        tx.commit().await?;
        self.changed(if is_kept { "retired" } else { "deleted" });
        Ok(())
    }

    /// Completes a change to the prices of a game: invalidates earlier quotes and, if the game is published, publishes
    /// an event. The caller must have locked the game.
    pub(in crate::games) async fn reprice(
        &self,
        db: &mut PgConnection,
        id: GameId,
        state: GameState,
        trace: Uuid,
    ) -> Result<()> {
        sql::bump_game(db, id).await?;
        let shown = self.shown(db, id).await?;
        publish_change(db, &shown, (Some(state), Some(state)), trace).await
    }

    pub(in crate::games) fn changed(&self, operation: &'static str) {
        self.catalog.expire();
        self.metrics.wallet_catalog_changes_total.with([operation]).increment(1);
    }

    /// Reads a game with its current prices, to show it in an event.
    async fn shown(&self, db: &mut PgConnection, id: GameId) -> Result<Game> {
        let row = sql::find(db, id).await?.ok_or(StoreRefusal::GameNotFound)?;
        self.game_from(row)
    }
}

/// The event that announces a change to a published game. Changes to drafts and retired games are not announced.
pub(super) struct PublicChange {
    kind: &'static str,
    data: Box<RawValue>,
    text: String,
}

impl PublicChange {
    /// Creates the event for a change to a game. Returns `None` if the game is public neither before nor after the
    /// change.
    pub(super) fn new(
        game: &Game,
        before: Option<GameState>,
        after: Option<GameState>,
    ) -> Result<Option<Self>> {
        let is_public = |state: Option<GameState>| state == Some(GameState::Published);
        let (kind, verb) = match (is_public(before), is_public(after)) {
            (false, true) => ("game.added", "added"),
            (true, true) => ("game.updated", "updated"),
            (true, false) => ("game.deleted", "deleted"),
            (false, false) => return Ok(None),
        };
        // All subscribers get the same event, regardless of the format of amounts that the request prefers.
        let game_body = GameBody::try_from(game)?;
        let data = MoneyFormat::Number.write(|| to_raw_value(&game_body));
        let data = data.map_err(|cause| Error::Internal(cause.into()))?;
        let text = format!("The game {} was {verb}.", game.title);
        Ok(Some(Self { kind, data, text }))
    }

    pub(super) fn event(&self, trace: Option<Uuid>) -> NewEvent<'_> {
        NewEvent {
            topic: TOPIC,
            kind: self.kind,
            data: &self.data,
            text: Some(&self.text),
            player: None,
            audience: Audience::Everyone,
            trace,
        }
    }
}

async fn publish_change(
    db: &mut PgConnection,
    game: &Game,
    (before, after): (Option<GameState>, Option<GameState>),
    trace: Uuid,
) -> Result<()> {
    match PublicChange::new(game, before, after)? {
        Some(change) => publish(db, &change.event(Some(trace))).await,
        None => Ok(()),
    }
}

/// Locks the catalog, so that changes run one at a time, and then the game. The game is locked last, because purchases
/// may have to wait for its lock. Returns the facts that decide what a caller may change about the game, and the state
/// of the game.
async fn lock(
    db: &mut PgConnection,
    id: GameId,
    stops_sales: bool,
) -> Result<(sql::GameFacts, GameState)> {
    sql::bump_revision(db).await?;
    sql::lock(db, id, stops_sales).await?;
    let game = sql::facts(db, id).await?.ok_or(StoreRefusal::GameNotFound)?;
    let state = game.state.parse().map_err(|_| StoreRefusal::GameNotFound)?;
    Ok((game, state))
}

/// Locks a game and returns its state. Returns an error unless the caller may manage the game.
pub(in crate::games) async fn lock_managed(
    db: &mut PgConnection,
    id: GameId,
    caller: &Caller,
) -> Result<GameState> {
    require_game_manager(db, id, caller).await?;
    let (_, state) = lock(db, id, false).await?;
    Ok(state)
}

/// Returns an error unless the caller may manage a game.
pub(in crate::games) async fn require_game_manager(
    db: &mut PgConnection,
    id: GameId,
    caller: &Caller,
) -> Result<()> {
    let Some(game) = sql::facts(db, id).await? else {
        // Only callers that may manage all games learn that the game does not exist.
        require_manager(caller, None)?;
        return Err(StoreRefusal::GameNotFound.into());
    };
    require_manager(caller, game.publisher_user)
}

async fn set_prices(db: &mut PgConnection, game: GameId, prices: &[Price]) -> Result<()> {
    let currencies: Vec<String> =
        prices.iter().map(|price| price.currency.code().to_owned()).collect();
    let amounts: Vec<i64> = prices.iter().map(|price| price.amount.0).collect();
    sql::set_prices(db, game, &currencies, &amounts).await
}
