//! Request and response bodies that several routes of the exchange share.

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::exchange::order::Order;
use crate::exchange::terms::{OrderAmount, Pair, Side};
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{RawField, Validator};
use crate::http::fields::moment;
use crate::ledger::currency::Currencies;
use crate::ledger::money::Minor;
use crate::saga::StepRow;
use crate::saga::{SagaState, StepState};
use crate::wallet::http::body::number;

/// Parses the amount of an order, which a request may give in fiat or in crypto, but not in both.
pub(super) fn order_amount(
    validator: &mut Validator,
    pair: Pair,
    fiat: &RawField<'_>,
    crypto: &RawField<'_>,
) -> Option<OrderAmount> {
    let amount = |currency| {
        move |raw: &str| {
            let text = Currencies::amount_text(raw)?;
            Minor::parse_amount(text, currency).map_err(|cause| cause.to_string())
        }
    };
    let parsed_fiat = validator.optional("/fiat_amount", fiat, amount(pair.fiat));
    let parsed_crypto = validator.optional("/crypto_amount", crypto, amount(pair.crypto));
    if fiat.raw().is_some() && crypto.raw().is_some() {
        validator.refuse("", "must have fiat_amount or crypto_amount, not both");
    }
    parsed_fiat.map(OrderAmount::Fiat).or(parsed_crypto.map(OrderAmount::Crypto))
}

/// Response body that reports only success.
#[derive(Serialize, ToSchema)]
#[schema(as = ExchangeStatus)]
pub(in crate::exchange) struct StatusBody {
    #[schema(example = "OK")]
    status: &'static str,
}

impl StatusBody {
    pub(in crate::exchange) const OK: Self = Self { status: "OK" };
}

/// A step of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderStep)]
pub(super) struct StepBody {
    /// `hold`, `exchange`, `withdraw` or `payout`.
    #[schema(example = "exchange")]
    name: String,
    #[schema(value_type = StepState)]
    state: String,
    #[schema(example = 1)]
    attempts: i32,
    #[schema(example = 0)]
    undo_attempts: i32,
    #[schema(required, example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    started_at: Option<String>,
    #[schema(required, example = "2026-01-31T12:00:00.223456Z", format = DateTime)]
    ended_at: Option<String>,
    /// Error of the last failed attempt at the step.
    #[schema(required)]
    error: Option<String>,
    /// Id of the transfer that moved the money of the step.
    #[schema(required, example = "17")]
    transfer_id: Option<String>,
    /// Id of the transfer that moved the money back when the step was undone.
    #[schema(required)]
    undo_transfer_id: Option<String>,
}

impl TryFrom<StepRow> for StepBody {
    type Error = Error;

    fn try_from(step: StepRow) -> Result<Self> {
        let text = |id: Option<i64>| id.map(|id| id.to_string());
        Ok(Self {
            name: step.name,
            state: step.state,
            attempts: step.attempts,
            undo_attempts: step.undo_attempts,
            started_at: step.started_at.map(moment).transpose()?,
            ended_at: step.ended_at.map(moment).transpose()?,
            error: step.error,
            transfer_id: text(step.transfer),
            undo_transfer_id: text(step.undo_transfer),
        })
    }
}

/// An order with its steps.
#[derive(Serialize, ToSchema)]
#[schema(as = ExchangeOrder)]
pub(in crate::exchange) struct OrderBody {
    #[schema(example = 1)]
    order_id: i64,
    #[schema(example = 2)]
    user_id: i64,
    side: Side,
    #[schema(value_type = SagaState)]
    state: &'static str,
    /// Explanation of the state: for example, why the order is waiting or has failed; null if there is none.
    #[schema(required)]
    reason: Option<String>,
    /// Fiat amount that a buyer pays (fee included) or a seller receives (fee deducted).
    #[schema(value_type = f64, example = 30.00)]
    fiat_amount: JsonDecimal,
    #[schema(value_type = f64, example = 3.0)]
    crypto_amount: JsonDecimal,
    #[schema(value_type = f64, example = 0.00)]
    fee: JsonDecimal,
    /// Price of a unit of crypto in the fiat currency.
    #[schema(value_type = f64, example = 10)]
    price: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(required)]
    quote_id: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
    #[schema(required, example = "2026-01-31T12:00:00.323456Z", format = DateTime)]
    ended_at: Option<String>,
    /// Time after which the order is undone if it is not complete.
    #[schema(example = "2026-01-31T12:15:00.123456Z", format = DateTime)]
    deadline: String,
    steps: Vec<StepBody>,
}

impl OrderBody {
    pub(in crate::exchange) fn new(order: Order, pair: Pair) -> Result<Self> {
        let Order { id, user, terms, quote, state, reason, created_at, ended_at, deadline, steps } =
            order;
        Ok(Self {
            order_id: id.0,
            user_id: user.0,
            side: terms.side,
            state: state.name(),
            reason,
            fiat_amount: number(terms.fiat, pair.fiat)?,
            crypto_amount: number(terms.crypto, pair.crypto)?,
            fee: number(terms.fee, pair.fiat)?,
            price: decimal(terms.price)?,
            currency: pair.fiat.code().to_owned(),
            quote_id: quote.map(|quote| quote.to_string()),
            created_at: moment(created_at)?,
            ended_at: ended_at.map(moment).transpose()?,
            deadline: moment(deadline)?,
            steps: steps.into_iter().map(StepBody::try_from).collect::<Result<_>>()?,
        })
    }
}

/// Converts a price to a JSON number.
pub(super) fn decimal(value: rust_decimal::Decimal) -> Result<JsonDecimal> {
    JsonDecimal::new(value)
}
