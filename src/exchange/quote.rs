//! Quotes: terms of an order that are locked for a limited time, and that at most one order can use.

use time::OffsetDateTime;
use uuid::Uuid;

use super::terms::{OrderAmount, Side, Terms};
use super::{Exchange, sql};
use crate::auth::Caller;
use crate::error::{ExchangeRefusal, Result};

/// Time for which an expired quote is kept. During this time, the error for an order with the quote says that the quote
/// has expired; afterwards, it says that the quote does not exist.
pub(super) const KEPT_AFTER_EXPIRY: std::time::Duration = std::time::Duration::from_hours(1);

/// A quote: the terms of an order, locked until `expires_at`.
#[derive(Debug, Clone)]
pub struct ExchangeQuote {
    pub id: Uuid,
    pub terms: Terms,
    pub expires_at: OffsetDateTime,
}

impl Exchange {
    /// Creates a quote for an order of the signed-in user.
    pub async fn quote(
        &self,
        side: Side,
        amount: OrderAmount,
        caller: &Caller,
    ) -> Result<ExchangeQuote> {
        let user = caller.require_user()?;
        let terms = self.terms(side, amount).await?;
        self.require_within_limits(&terms)?;
        let id = Uuid::new_v4();
        let mut db = self.db.acquire("exchange.quote").await?;
        let lifetime = self.settings.quote_lifetime.as_secs_f64();
        let kept = KEPT_AFTER_EXPIRY.as_secs_f64();
        let code = self.pair.fiat.code();
        let expires_at = sql::create_quote(&mut db, id, user, &terms, code, lifetime, kept).await?;
        self.metrics.wallet_exchange_quotes_total.with([side.name()]).increment(1);
        Ok(ExchangeQuote { id, terms, expires_at })
    }

    /// Computes the terms of an order at the current price.
    pub(super) async fn terms(&self, side: Side, amount: OrderAmount) -> Result<Terms> {
        let price = self.exchanger.price().await.map_err(|error| {
            tracing::warn!(
                event = "exchange.price_unavailable",
                error.message = error.into_cause().to_string(),
                "could not read the price from the external exchange; refusing quotes, and orders without a quote, \
                 until a read succeeds"
            );
            ExchangeRefusal::PriceUnavailable
        })?;
        Terms::new(side, amount, price, self.settings.exchange_fee, self.pair)
    }
}
