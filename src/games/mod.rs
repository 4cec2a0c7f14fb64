//! The games store: publishers and their games, purchases, and libraries.
//!
//! | part | file |
//! |---|---|
//! | games: add, change, delete, list, search | [`catalog`] |
//! | publishers and their fees | [`publisher`] |
//! | sales: lower prices for a limited time | [`sale`] |
//! | discount codes | [`code`] |
//! | activation keys | [`activation_key`] |
//! | purchases, gifts and refunds of games | [`purchase`] |
//! | the games of a user | [`library`] |
//! | import of games from a file | [`import`] |
//!
//! The catalog is public. A game without a publisher belongs to the house, which is the operator of the store.

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

/// SQL statements of the games store that run in the same transaction as a ledger posting.
pub static COMPANIONS: [&CompanionKind; 2] = [&purchase::sql::CLAIMED, &purchase::sql::REVERTED];

/// The operations of the games store, which the routes call. Cheap to clone.
#[derive(Clone)]
pub struct Games(Arc<GamesParts>);

pub struct GamesParts {
    db: Database,
    wallets: Wallets,
    catalog: CatalogCache,
    settings: GamesArgs,
    /// Locks within this process. Purchases of a game for the same recipient run one at a time. If few copies of a game
    /// are left, all its purchases run one at a time.
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

/// Returns an error unless the caller may manage the games of a publisher. `user` is the user who acts for the
/// publisher; `None` if the games belong to the operator.
fn require_manager(caller: &Caller, user: Option<UserId>) -> Result<()> {
    match user {
        Some(user) => caller.require_owner_or_scope(user, Scope::GamesWrite),
        None => caller.require_scope(Scope::GamesWrite),
    }
}
