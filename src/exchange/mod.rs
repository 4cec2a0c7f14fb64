//! The exchange: users buy and sell crypto for the default currency. Each order is executed by a saga, a sequence of
//! steps that are undone if a later step fails permanently.
//!
//! | part | file |
//! |---|---|
//! | the amounts, the fee and the price of an order | [`terms`] |
//! | quotes, which lock the price of an order for a limited time | [`quote`] |
//! | placing, getting and listing orders | [`order`] |
//! | the steps of an order, and the ledger transfers of each step | [`steps`] |
//! | the external exchange and the blockchain, and their simulation | [`outside`] |
//! | the text of the mail to users whose orders have ended | [`notice`] |
//! | sending mail | [`smtp`] |
//! | the wallets of a user on the exchange | [`wallet`] |
//! | the accounts from which the house pays for orders | [`hot_wallet`] |
//! | commands of operators on orders | [`operator`] |
//!
//! The user's money is held before the external exchange is called, and every step moves money through the hot wallets,
//! which cannot be overdrawn. An order either completes or leaves the user's balances unchanged.

mod args;
pub mod cli;
pub mod feed;
pub mod hot_wallet;
pub mod http;
mod notice;
pub mod operator;
pub mod order;
pub mod outside;
pub mod quote;
mod smtp;
mod sql;
pub mod steps;
pub mod terms;
pub mod wallet;

use std::sync::Arc;

use anyhow::Context;

use crate::db::Database;
use crate::ledger::companion::CompanionKind;
use crate::saga::{self, Sagas};
use crate::striped_lock::StripedLock;
use crate::telemetry::Metrics;
use crate::wallet::Wallets;

use self::args::OrderLimits;
use self::outside::simulated::SimulatedOutside;
use self::outside::{ChainGateway, Exchanger, Notifier};
use self::smtp::Mailer;
use self::steps::OrderSteps;
use self::terms::Pair;

pub use self::args::ExchangeArgs;
pub use self::notice::Notice;

/// Every SQL statement of the exchange that runs in the same transaction as a ledger posting.
pub static COMPANIONS: [&CompanionKind; 2] = [&order::PLACED, &saga::MOVED];

/// Code of the cryptocurrency that the exchange trades.
const CRYPTO: &str = "BTC";

/// The operations of the exchange, which the routes and the command line call. Cheap to clone.
#[derive(Clone)]
pub struct Exchange(Arc<ExchangeParts>);

pub struct ExchangeParts {
    db: Database,
    wallets: Wallets,
    exchanger: Arc<dyn Exchanger>,
    simulation: SimulatedOutside,
    settings: ExchangeArgs,
    limits: OrderLimits,
    /// Locks by user id, so that orders of one user that can conflict are placed one at a time.
    users: StripedLock,
    pair: Pair,
    sagas: Sagas<OrderSteps>,
    metrics: Arc<Metrics>,
}

impl std::ops::Deref for Exchange {
    type Target = ExchangeParts;

    fn deref(&self) -> &ExchangeParts {
        &self.0
    }
}

impl Exchange {
    pub fn new(
        db: Database,
        wallets: Wallets,
        settings: &ExchangeArgs,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let fiat = wallets.default_currency();
        let crypto = wallets.currencies().find(CRYPTO).context("BTC is not a currency")?;
        let pair = Pair { fiat, crypto };
        let limits = settings.limits(fiat)?;
        let simulation = SimulatedOutside::new(db.clone(), settings.simulation(), pair);
        let exchanger: Arc<dyn Exchanger> = Arc::new(simulation.clone());
        let chain: Arc<dyn ChainGateway> = Arc::new(simulation.clone());
        let notifier: Option<Arc<dyn Notifier>> = match &settings.smtp_url {
            Some(server) => Some(Arc::new(Mailer::new(server, &settings.mail_from)?)),
            None => None,
        };
        let notifies = notifier.is_some();
        let steps = OrderSteps {
            wallets: wallets.clone(),
            exchanger: Arc::clone(&exchanger),
            chain,
            notifier,
            db: db.clone(),
            pair,
            metrics: Arc::clone(&metrics),
        };
        let sagas = Sagas::new(db.clone(), steps, settings.sagas(notifies), Arc::clone(&metrics));
        order::preregister(&metrics);
        let settings = settings.clone();
        Ok(Self(Arc::new(ExchangeParts {
            db,
            wallets,
            exchanger,
            simulation,
            settings,
            limits,
            users: StripedLock::new(),
            pair,
            sagas,
            metrics,
        })))
    }
}

impl ExchangeParts {
    /// Returns the two currencies that the exchange trades.
    pub fn pair(&self) -> Pair {
        self.pair
    }

    /// Returns the saga engine that executes the orders.
    pub fn sagas(&self) -> &Sagas<OrderSteps> {
        &self.sagas
    }

    pub fn simulation(&self) -> &SimulatedOutside {
        &self.simulation
    }
}
