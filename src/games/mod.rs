//! The games store: publishers and their games, purchases, and libraries.
//!
//! | part | file |
//! |---|---|
//! | games: add, change, delete, list, search | [`catalog`] |
//! | publishers and their fees | [`publisher`] |
//! | lower prices for a window of time | [`sale`] |
//! | discount codes | [`code`] |
//! | activation keys | [`activation_key`] |
//! | buying, giving and refunding a game | [`purchase`] |
//! | the games of a user | [`library`] |
//! | a catalog from a file | [`import`] |
//!
//! The catalog is public. A game without a publisher is a game of the house, which is the operator of the store.

pub mod activation_key;
mod args;
pub mod catalog;
pub mod cli;
pub mod code;
mod guess;
pub mod http;
pub mod import;
pub mod library;
pub mod publisher;
pub mod purchase;
pub mod sale;
mod sql;

use std::sync::Arc;

use crate::auth::{Caller, Scope};
use crate::db::Database;
use crate::error::Result;
use crate::ids::UserId;
use crate::ledger::companion::CompanionKind;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::tail::Tail;
use crate::telemetry::Metrics;
use crate::wallet::Wallets;

use self::catalog::CatalogCache;
use self::purchase::{PurchaseLocks, QuoteCache};

pub use self::args::GamesArgs;

/// Every companion statement of this slice, which commits together with a posting.
pub static COMPANIONS: [&CompanionKind; 2] = [&purchase::sql::CLAIMED, &purchase::sql::REVERTED];

/// The book that purchases are paid in.
const BOOK: i32 = 1;

/// The operations of the store. Cheap to clone.
#[derive(Clone)]
pub struct Games(Arc<GamesParts>);

pub struct GamesParts {
    db: Database,
    wallets: Wallets,
    catalog: CatalogCache,
    settings: GamesArgs,
    /// A purchase holds the lock of its recipient, and that of a game with few copies left.
    locks: PurchaseLocks,
    quotes: QuoteCache,
    metrics: Arc<Metrics>,
}

impl std::ops::Deref for Games {
    type Target = GamesParts;

    fn deref(&self) -> &GamesParts {
        &self.0
    }
}

impl Games {
    pub fn new(
        db: Database,
        wallets: Wallets,
        tail: &Tail,
        settings: &GamesArgs,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        settings.require_currencies(wallets.currencies())?;
        catalog::preregister(&metrics);
        purchase::preregister(&metrics);
        activation_key::preregister(&metrics);
        guess::preregister(&metrics);
        let catalog = CatalogCache::new(tail, Arc::clone(&metrics));
        let settings = settings.clone();
        let locks = PurchaseLocks::default();
        let quotes = QuoteCache::default();
        Ok(Self(Arc::new(GamesParts { db, wallets, catalog, settings, locks, quotes, metrics })))
    }
}

impl GamesParts {
    fn currencies(&self) -> &Currencies {
        self.wallets.currencies()
    }

    fn default_currency(&self) -> Currency {
        self.wallets.default_currency()
    }
}

/// Refuses a caller that may manage neither the games of this publisher nor all games. `user` is the publisher's user;
/// `None` for games of the house.
fn require_manager(caller: &Caller, user: Option<UserId>) -> Result<()> {
    match user {
        Some(user) => caller.require_owner_or_scope(user, Scope::GamesWrite),
        None => caller.require_scope(Scope::GamesWrite),
    }
}
