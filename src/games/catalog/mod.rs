//! The catalog: the games of the store and their prices, and how they are added, changed and deleted.
//!
//! Lists come from a cache that checks whether the catalog has changed ([`cache`]). A single game is read from the
//! database.

mod add;
mod body;
mod cache;
mod change;
mod list;
mod sql;

use std::str::FromStr;

use time::OffsetDateTime;

use crate::auth::Caller;
use crate::error::{Error, Result, StoreRefusal};
use crate::games::{Games, require_manager};
use crate::ids::{GameId, PublisherId, UserId};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::telemetry::Metrics;

pub use self::add::{AddedGame, NewGame};
pub(in crate::games) use self::add::{Insertion, NOT_A_BASE, NOT_A_PUBLISHER, insert_all};
pub(in crate::games) use self::body::{GameBody, ListedGameBody};
pub use self::cache::{CachedList, CatalogCache};
pub use self::change::{CopiesChange, GameChanges};
pub(in crate::games) use self::change::{lock_managed, require_game_manager};
pub use self::list::{GameFilter, ListedGame, search_query};
pub(in crate::games) use self::sql::{bases, bump_revision, find_by_keys};

/// Longest title of a game, in characters.
pub const TITLE_MAX: usize = 200;

/// Longest genre of a game, in characters.
pub const GENRE_MAX: usize = 64;

/// Longest description of a game, in characters.
pub const DESCRIPTION_MAX: usize = 4_000;

/// Maximum number of prices of a game in currencies other than its main currency.
pub const PRICES_MAX: usize = 50;

/// State of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum GameState {
    /// The game is visible only to callers that may manage it.
    Draft,
    Published,
    /// The game is no longer for sale, but stays in the libraries of its owners.
    Retired,
}

impl GameState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Retired => "retired",
        }
    }
}

impl FromStr for GameState {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Draft, Self::Published, Self::Retired]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| "must be draft, published or retired".to_owned())
    }
}

/// Price of a game during a sale.
#[derive(Debug, Clone, Copy)]
pub struct SalePrice {
    pub amount: Minor,
    pub starts_at: OffsetDateTime,
    pub ends_at: OffsetDateTime,
}

/// A price of a game, and the sale that lowers it now.
#[derive(Debug, Clone, Copy)]
pub struct ListedPrice {
    pub price: Price,
    pub sale: Option<SalePrice>,
}

/// A price in a currency; zero means that the game is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub currency: Currency,
    pub amount: Minor,
}

/// A game in the catalog.
#[derive(Debug, Clone)]
pub struct Game {
    pub id: GameId,
    pub title: String,
    pub genre: String,
    pub description: String,
    pub price: Price,
    /// Prices in all currencies; the price in the main currency comes first.
    pub prices: Vec<ListedPrice>,
    /// Publisher of the game; `None` if the game belongs to the operator.
    pub publisher: Option<PublisherId>,
    /// User who acts for the publisher.
    publisher_user: Option<UserId>,
    pub state: GameState,
    /// The base game, if this game is downloadable content.
    pub base: Option<GameId>,
    pub copies: Option<Copies>,
}

/// Limit on the copies of a game, and the number of copies that are left.
#[derive(Debug, Clone, Copy)]
pub struct Copies {
    /// Maximum number of copies that all users together can own at a time.
    pub limit: i32,
    /// Number of copies that are left.
    pub left: i32,
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["hit", "miss"] {
        metrics.wallet_catalog_lists_total.preregister([outcome]);
    }
    for operation in ["added", "updated", "deleted", "retired"] {
        metrics.wallet_catalog_changes_total.preregister([operation]);
    }
}

impl Games {
    /// Returns a game. A draft is visible only to callers that may manage it.
    pub async fn game(&self, id: GameId, caller: &Caller) -> Result<Game> {
        let mut db = self.db.snapshot("games.get").await?;
        let found = sql::find(&mut db, id).await?;
        drop(db);
        let game = self.game_from(found.ok_or(StoreRefusal::GameNotFound)?)?;
        if game.state == GameState::Draft && require_manager(caller, game.publisher_user).is_err() {
            return Err(StoreRefusal::GameNotFound.into());
        }
        Ok(game)
    }

    /// Returns an error if the game does not exist or the caller may not see it.
    pub(in crate::games) async fn require_visible(
        &self,
        id: GameId,
        caller: &Caller,
    ) -> Result<()> {
        self.game(id, caller).await.map(drop)
    }

    /// Returns the main currency of a game. A price that a request gives without a currency is in this currency.
    pub(in crate::games) async fn main_currency(&self, id: GameId) -> Result<Currency> {
        let mut db = self.db.acquire("games.main_currency").await?;
        let row = sql::find(&mut db, id).await?.ok_or(StoreRefusal::GameNotFound)?;
        drop(db);
        Ok(self.price_from(&row.currency, row.price)?.currency)
    }

    /// Returns the main currency of a game, if the caller may manage the game.
    pub(in crate::games) async fn managed_currency(
        &self,
        id: GameId,
        caller: &Caller,
    ) -> Result<Currency> {
        let mut db = self.db.acquire("games.managed_currency").await?;
        require_game_manager(&mut db, id, caller).await?;
        drop(db);
        self.main_currency(id).await
    }

    fn game_from(&self, row: sql::GameRow) -> Result<Game> {
        let copies =
            row.copies.zip(row.left).map(|(limit, left)| Copies { limit, left: left.max(0) });
        let prices = row.prices.into_iter().map(|row| {
            let price = self.price_from(&row.currency, row.price)?;
            let sale = row.sale_price.zip(row.starts_at.zip(row.ends_at));
            let sale = sale.map(|(amount, (starts_at, ends_at))| SalePrice {
                amount: Minor(amount),
                starts_at,
                ends_at,
            });
            Ok(ListedPrice { price, sale })
        });
        Ok(Game {
            id: row.id,
            price: self.price_from(&row.currency, row.price)?,
            prices: prices.collect::<Result<_>>()?,
            title: row.title,
            genre: row.genre,
            description: row.description,
            publisher: row.publisher,
            publisher_user: row.publisher_user,
            state: row.state.parse().map_err(|_| StoreRefusal::GameNotFound)?,
            base: row.base,
            copies,
        })
    }

    pub(in crate::games) fn price_from(&self, code: &str, amount: i64) -> Result<Price> {
        let currency = self.currencies().find(code).ok_or_else(|| {
            Error::Internal(anyhow::anyhow!(
                "the currency {code} of a game is no longer listed in --currency"
            ))
        })?;
        Ok(Price { currency, amount: Minor(amount) })
    }
}
