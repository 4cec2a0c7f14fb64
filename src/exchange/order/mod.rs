//! Placement of orders. A single ledger posting holds the user's money and begins the saga that executes the order.

mod read;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::steps::{self, HELD};
use super::terms::{OrderAmount, Side, Terms};
use super::{Exchange, sql};
use crate::auth::Scope;
use crate::error::{Error, ExchangeRefusal, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::{PlayerId, SagaId, TransferId, UserId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::companion::Companion;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, TransferKind};
use crate::saga::NewSaga;
use crate::telemetry::Metrics;
use crate::wallet::RequestMeta;
use crate::wallet::main_wallet::charge::Charge;

pub use self::read::{Order, OrderListFilter};
pub use super::sql::PLACED;

/// Maximum number of attempts to place an order. An attempt is repeated if it conflicts with an uncommitted order that
/// has the same user or the same quote, and that another process places.
const ATTEMPTS_MAX: u32 = 32;

/// Error text of a posting that the database refused because the quote has expired or was used, or because the user has
/// reached a limit.
const REFUSED: &str = "the quote or a limit does not permit the order";

/// An order as the client requests it.
#[derive(Debug, Clone, Copy)]
pub struct OrderRequest {
    pub side: Side,
    pub user: UserId,
    /// Amount to trade; optional if the request has a quote.
    pub amount: Option<OrderAmount>,
    pub quote: Option<Uuid>,
}

/// An order that was placed.
#[derive(Debug, Clone, Copy)]
pub struct PlacedOrder {
    pub id: SagaId,
    pub replayed: bool,
}

/// Data of an order that its steps need. It is stored with the saga that executes the order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct OrderInput {
    pub side: Side,
    pub fiat: Minor,
    pub fee: Minor,
    pub crypto: Minor,
    /// Fiat amount of the trade between the house and the external exchange, at the price of the order.
    pub traded: Minor,
}

/// An order and its saga, as the input row of the SQL function that places orders.
#[derive(Serialize)]
struct PlacedRow<'a> {
    side: &'a str,
    currency: &'a str,
    fiat: Minor,
    fee: Minor,
    crypto: Minor,
    price: String,
    quote: Option<Uuid>,
    day_max: Option<Minor>,
    month_max: Option<Minor>,
    #[serde(flatten)]
    saga: NewSaga<'a>,
}

pub(super) fn preregister(metrics: &Metrics) {
    for command in ["approve", "retry", "skip", "abort", "resolve"] {
        metrics.wallet_exchange_commands_total.preregister([command]);
    }
    for side in [Side::Buy, Side::Sell] {
        metrics.wallet_exchange_quotes_total.preregister([side.name()]);
        for outcome in ["placed", "replayed", "refused"] {
            metrics.wallet_exchange_orders_total.preregister([side.name(), outcome]);
        }
    }
}

impl Exchange {
    /// Places an order for a user, and counts the outcome in the metrics.
    pub async fn place_order(
        &self,
        request: &OrderRequest,
        meta: RequestMeta<'_>,
    ) -> Result<PlacedOrder> {
        let placed = self.try_place_order(request, meta).await;
        let outcome = match &placed {
            Ok(order) if order.replayed => "replayed",
            Ok(_) => "placed",
            Err(_) => "refused",
        };
        self.metrics.wallet_exchange_orders_total.with([request.side.name(), outcome]).increment(1);
        placed
    }

    async fn try_place_order(
        &self,
        request: &OrderRequest,
        meta: RequestMeta<'_>,
    ) -> Result<PlacedOrder> {
        let OrderRequest { side, user, amount, quote } = request;
        meta.caller.require_user_or_scope(*user, Scope::Admin)?;
        let content = [
            user.to_string(),
            side.name().to_owned(),
            amount.map(OrderAmount::content).unwrap_or_default(),
            quote.map(|quote| quote.to_string()).unwrap_or_default(),
        ];
        let content = content.each_ref().map(String::as_str);
        let key = meta.key.hashed(meta.caller.name(), "exchange.order", &content);
        let terms = match self.order_terms(request).await {
            Ok(terms) => terms,
            Err(refusal) => return self.earlier_order(key).await?.ok_or(refusal),
        };
        // Without limits and a quote, orders of the same user do not conflict.
        let conflicts =
            quote.is_some() || self.limits.day_max.is_some() || self.limits.month_max.is_some();
        let _guard = if conflicts { Some(self.users.lock(user.0).await) } else { None };
        for _ in 0..ATTEMPTS_MAX {
            match self.charge(request, &terms, key, meta).await {
                Ok(Some(placed)) => return Ok(placed),
                Ok(None) => {
                    if let Some(earlier) = self.earlier_order(key).await? {
                        return Ok(earlier);
                    }
                    if let Some(refusal) = self.refusal(request, &terms).await? {
                        return Err(refusal);
                    }
                    // This order conflicts with an uncommitted order that has the same user or the same quote, so it is
                    // tried again.
                }
                Err(refusal) => return self.earlier_order(key).await?.ok_or(refusal),
            }
        }
        Err(Error::Overloaded)
    }

    /// Returns the terms of a requested order: the terms of its quote or, without a quote, terms at the current price.
    async fn order_terms(&self, request: &OrderRequest) -> Result<Terms> {
        let OrderRequest { side, user, amount, quote } = request;
        let terms = match (quote, amount) {
            (None, None) => {
                return Err(Error::field("", "needs fiat_amount, crypto_amount or quote_id"));
            }
            (None, Some(amount)) => self.terms(*side, *amount).await?,
            (Some(quote), amount) => {
                let mut db = self.db.acquire("exchange.find_quote").await?;
                let found = sql::find_quote(&mut db, *quote, *user, self.pair.fiat.code()).await?;
                drop(db);
                let terms = found.ok_or(Error::NotFound("quote"))?;
                if terms.side != *side {
                    return Err(Error::field(
                        "/quote_id",
                        "is not a quote for this side (buy or sell)",
                    ));
                }
                let matches = match amount {
                    None => true,
                    Some(OrderAmount::Fiat(fiat)) => *fiat == terms.fiat,
                    Some(OrderAmount::Crypto(crypto)) => *crypto == terms.crypto,
                };
                if !matches {
                    return Err(Error::field("/quote_id", "is a quote for a different amount"));
                }
                terms
            }
        };
        self.require_within_limits(&terms)?;
        Ok(terms)
    }

    /// Returns an error if the amount is outside the limits of a single order.
    pub(super) fn require_within_limits(&self, terms: &Terms) -> Result<()> {
        let fiat = self.pair.fiat;
        let limits = &self.limits;
        if let Some(min) = limits.min.filter(|min| terms.fiat < *min) {
            return Err(ExchangeRefusal::BelowMinimum(min.exact(fiat).to_string()).into());
        }
        if let Some(max) = limits.max.filter(|max| *max < terms.fiat) {
            let (limit, period) = (max.exact(fiat).to_string(), "for an order");
            return Err(ExchangeRefusal::LimitReached { limit, period }.into());
        }
        Ok(())
    }

    /// Holds the user's money and begins the saga. Returns `None` if the database refused the order because of its
    /// quote or a limit.
    async fn charge(
        &self,
        request: &OrderRequest,
        terms: &Terms,
        key: Option<HashedKey>,
        meta: RequestMeta<'_>,
    ) -> Result<Option<PlacedOrder>> {
        let id = self.sagas.next_id().await?;
        let input = OrderInput {
            side: terms.side,
            fiat: terms.fiat,
            fee: terms.fee,
            crypto: terms.crypto,
            traded: terms.traded_fiat(),
        };
        let input = to_raw_value(&input).map_err(|cause| Error::Internal(cause.into()))?;
        let companion = self.placed(request, terms, id, &input, meta.trace)?;
        let (currency, amount) = steps::held(self.pair, terms.side, terms.fiat, terms.crypto);
        let hot = AccountId::system(SystemRole::Hot, currency);
        let legs = |debit| {
            let kind = TransferKind::Exchange;
            vec![Leg::from(Action::Move { kind, debit, credit: hot, amount })]
        };
        let player = PlayerId::from(request.user);
        let charge = Charge { player: &player, currency, amount, key };
        let Some(posted) = self.wallets.charge_main(&charge, legs, &companion, meta).await? else {
            return Ok(None);
        };
        if posted.replayed {
            return self.earlier_order(key).await;
        }
        self.metrics.wallet_saga_started_total.with([terms.side.name()]).increment(1);
        Ok(Some(PlacedOrder { id, replayed: false }))
    }

    fn placed(
        &self,
        request: &OrderRequest,
        terms: &Terms,
        id: SagaId,
        input: &RawValue,
        trace: Uuid,
    ) -> Result<Companion> {
        let definition = steps::newest(terms.side);
        let approved = self.limits.approval.is_none_or(|approval| terms.fiat <= approval);
        let row = PlacedRow {
            side: terms.side.name(),
            currency: self.pair.fiat.code(),
            fiat: terms.fiat,
            fee: terms.fee,
            crypto: terms.crypto,
            price: terms.price.to_string(),
            quote: request.quote,
            day_max: self.limits.day_max,
            month_max: self.limits.month_max,
            saga: NewSaga {
                saga: id,
                kind: definition.kind,
                version: definition.version,
                owner: request.user,
                reference: Uuid::new_v4(),
                input,
                seconds: self.settings.order_deadline.as_secs_f64(),
                approved,
                first_name: HELD,
                next_name: definition.steps[1].name,
                trace,
            },
        };
        Companion::new(&PLACED, &row, REFUSED).map_err(|cause| Error::Internal(cause.into()))
    }

    /// Finds the order that an earlier request with this idempotency key has placed.
    async fn earlier_order(&self, key: Option<HashedKey>) -> Result<Option<PlacedOrder>> {
        let Some(key) = key else { return Ok(None) };
        let found = self.wallets.ledger().find(key).await;
        let found = found.map_err(|error| crate::wallet::from_post_error(&error, None))?;
        let Some(posted) = found else { return Ok(None) };
        let mut db = self.db.acquire("exchange.earlier_order").await?;
        let id = sql::order_of(&mut db, TransferId(posted.first_seq)).await?;
        Ok(id.map(|id| PlacedOrder { id, replayed: true }))
    }

    /// Finds the reason why the database refused an order: its quote has expired or was used, or a limit is reached.
    /// Returns `None` if the reason is not visible yet, because another transaction has not committed.
    async fn refusal(&self, request: &OrderRequest, terms: &Terms) -> Result<Option<Error>> {
        let mut db = self.db.acquire("exchange.refusal").await?;
        if let Some(quote) = request.quote
            && !sql::is_quote_open(&mut db, quote).await?
        {
            return Ok(Some(ExchangeRefusal::QuoteEnded.into()));
        }
        let periods =
            [(self.limits.day_max, 24, "in 24 hours"), (self.limits.month_max, 720, "in 30 days")];
        for (limit, hours, period) in periods {
            let Some(limit) = limit else { continue };
            let code = self.pair.fiat.code();
            let volume = sql::volume(&mut db, request.user, code, hours).await?;
            if limit.0 < volume.saturating_add(terms.fiat.0) {
                let limit = limit.exact(self.pair.fiat).to_string();
                return Ok(Some(ExchangeRefusal::LimitReached { limit, period }.into()));
            }
        }
        Ok(None)
    }
}
