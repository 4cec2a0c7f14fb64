//! Interfaces to external systems: an exchange with which the house trades, a blockchain that transfers crypto, and a
//! notifier that tells users about their orders.
//!
//! Each call to the exchange or the blockchain carries a reference, which this program chooses and the external system
//! uses as an idempotency key. [`SagaHandler`] documents the guarantees that the external system must give.
//!
//! [`SagaHandler`]: crate::saga::SagaHandler

pub mod simulated;
mod sql;

use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::UserId;
use crate::ledger::money::Minor;
use crate::saga::CallOutcome;

use super::notice::Notice;
use super::terms::Side;

/// A trade between the house and the external exchange.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Trade {
    pub side: Side,
    pub crypto: Minor,
}

/// Result of a completed trade, as the external exchange reports it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fill {
    /// Amount that the external exchange took for a purchase, or paid for a sale, in minor units of the fiat currency.
    pub fiat: Minor,
}

/// A withdrawal of crypto to a user's wallet on the blockchain.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ChainTransfer {
    pub user: UserId,
    pub crypto: Minor,
}

/// Interface to the external exchange, with which the house trades.
pub trait Exchanger: Send + Sync + 'static {
    /// Returns the current price of a unit of crypto, in fiat.
    fn price(&self) -> BoxFuture<'_, Result<Decimal>>;

    fn trade<'a>(&'a self, reference: &'a str, trade: Trade) -> BoxFuture<'a, Result<()>>;

    /// Asks for the outcome of the trade with the given reference. If the trade was executed, its result is a [`Fill`].
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>>;

    fn cancel<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>>;
}

/// Notifies users when their orders have ended.
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
