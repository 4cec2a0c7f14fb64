//! Interfaces to other systems: an exchange that the house trades with, a blockchain that transfers crypto, and a
//! notifier that tells users about their orders.
//!
//! Each call carries a reference that this program chose, and that the other system uses as an idempotency key.
//! [`SagaHandler`] says which guarantees the saga engine relies on.
//!
//! [`SagaHandler`]: crate::saga::SagaHandler

mod notice;
pub mod simulated;
mod sql;

use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::UserId;
use crate::ledger::money::Minor;
use crate::saga::CallOutcome;

use super::terms::Side;

pub use self::notice::Notice;

/// A trade of the house with the other exchange.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Trade {
    pub side: Side,
    pub crypto: Minor,
}

/// Result of a trade that was done, as the other exchange reports it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fill {
    /// Amount that the other exchange took for a purchase, or paid for a sale, in minor units.
    pub fiat: Minor,
}

/// A withdrawal to the wallet of a user on the blockchain.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ChainTransfer {
    pub user: UserId,
    pub crypto: Minor,
}

/// Interface to another exchange, with which the house trades.
pub trait Exchanger: Send + Sync + 'static {
    /// Returns the current price of a unit of crypto, in fiat.
    fn price(&self) -> BoxFuture<'_, Result<Decimal>>;

    fn trade<'a>(&'a self, reference: &'a str, trade: Trade) -> BoxFuture<'a, Result<()>>;

    /// Asks for the outcome of the trade with this reference. The result of a trade that was done is a [`Fill`].
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>>;

    fn cancel<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>>;
}

/// Notifies users when their orders are over.
pub trait Notifier: Send + Sync + 'static {
    fn notify<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<()>>;
}

/// A gateway that transfers crypto on the blockchain.
pub trait ChainGateway: Send + Sync + 'static {
    fn withdraw<'a>(
        &'a self,
        reference: &'a str,
        transfer: ChainTransfer,
    ) -> BoxFuture<'a, Result<()>>;

    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>>;

    fn cancel<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>>;
}
