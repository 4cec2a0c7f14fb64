//! `/wallet/transfer`: from one wallet to another.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{asked, decimal, moment, note, number, replayable, wallet_id};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::{Check, JsonBody, Member, Path};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::ledger::money::Minor;
use crate::wallet::transfer::{Note, Order, Transfer, wallet_of};
use crate::wallet::{Facts, WalletId};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_transfer)).routes(routes!(get_transfer))
}

/// A movement of money.
#[derive(Serialize, ToSchema)]
#[schema(as = Transfer)]
pub(super) struct TransferBody {
    #[schema(example = "17")]
    id: String,
    /// What it was for: `transfer`, `deposit`, `withdrawal`, `hold`, `capture`, `void`, `expiry`, `refund` ...
    #[schema(example = "transfer")]
    kind: &'static str,
    /// The wallet it left; null for the world outside.
    #[schema(example = "1")]
    from: Option<String>,
    /// The wallet it came to; null for the world outside.
    #[schema(example = "2")]
    to: Option<String>,
    #[schema(value_type = f64, example = 5.00)]
    amount: Box<RawValue>,
    /// What the operator got on top of it.
    #[schema(value_type = f64, example = 0.10)]
    fee: Box<RawValue>,
    #[schema(example = "EUR")]
    currency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "for the coffee")]
    memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({ "order": 7 }))]
    metadata: Option<Box<RawValue>>,
    /// The transfer that it completes or undoes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "12")]
    linked: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    at: String,
    /// Finds the request that made it in logs and traces.
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: Option<String>,
}

impl TransferBody {
    pub(super) fn of(transfer: Transfer) -> Result<Self> {
        let Transfer { currency, debit, credit, .. } = transfer;
        let Note { memo, metadata } = transfer.note;
        Ok(Self {
            id: transfer.id.to_string(),
            kind: transfer.kind.name(),
            from: wallet_of(debit).map(|wallet| wallet.to_string()),
            to: wallet_of(credit).map(|wallet| wallet.to_string()),
            amount: number(transfer.amount, currency)?,
            fee: number(transfer.fee, currency)?,
            currency: currency.code().to_owned(),
            memo,
            metadata,
            linked: transfer.linked.map(|id| id.to_string()),
            at: moment(transfer.at)?,
            trace_id: transfer.trace_id.map(|id| id.simple().to_string()),
        })
    }
}

/// The answer that made a transfer.
pub(super) fn created(transfer: Transfer) -> Result<Response> {
    let (id, replayed) = (transfer.id, transfer.replayed);
    let mut response = replayable(StatusCode::CREATED, &TransferBody::of(transfer)?, replayed);
    let location = HeaderValue::from_str(&format!("/wallet/transfer/{id}"));
    response
        .headers_mut()
        .insert(header::LOCATION, location.expect("digits are visible characters"));
    Ok(response)
}

#[derive(Deserialize, ToSchema)]
#[schema(as = CreateTransfer)]
pub(super) struct OrderBody<'a> {
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "1")]
    from: Member<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "2")]
    to: Member<'a>,
    /// A decimal as a number or a string, with at most the currency's decimals.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "5.00")]
    amount: Member<'a>,
    /// On top of the amount, for the operator.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "0.10")]
    fee: Member<'a>,
    /// At most 500 characters.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "for the coffee")]
    memo: Member<'a>,
    /// Anything of your own, at most 1024 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>, example = json!({ "order": 7 }))]
    metadata: Member<'a>,
}

/// An order whose amounts wait for their currency.
pub(super) struct Draft<'a> {
    pub(super) from: WalletId,
    pub(super) to: WalletId,
    amount: &'a str,
    fee: Option<&'a str>,
    note: Note,
}

impl<'a> OrderBody<'a> {
    /// `at` is where it stands in the body.
    pub(super) fn draft(&self, at: &str) -> Result<Draft<'a>> {
        let mut check = Check::default();
        let from = check.required(&format!("{at}/from"), &self.from, wallet_id);
        let to = check.required(&format!("{at}/to"), &self.to, wallet_id);
        if from.is_some() && from == to {
            check.refuse(&format!("{at}/to"), "must be another wallet");
        }
        let amount = decimal(&mut check, &format!("{at}/amount"), &self.amount, true);
        let fee = decimal(&mut check, &format!("{at}/fee"), &self.fee, false);
        let note = note(&mut check, at, &self.memo, &self.metadata);
        let ((from, to), amount) = check.finish(from.zip(to).zip(amount))?;
        Ok(Draft { from, to, amount, fee, note })
    }
}

impl Draft<'_> {
    /// The order, now that the wallets are known.
    pub(super) fn order(
        self,
        at: &str,
        known: &HashMap<WalletId, Arc<Facts>>,
        caller: &Caller,
    ) -> Result<Order> {
        let facts = |wallet| known.get(wallet).ok_or(Error::NotFound("wallet"));
        let (from, to) = (facts(&self.from)?, facts(&self.to)?);
        caller.may_spend(from)?;
        if from.currency != to.currency {
            return Err(Error::CurrencyMismatch);
        }
        let currency = from.currency;
        let mut check = Check::default();
        let mut amount_of = |name: &str, text, zero_too| {
            let parse = if zero_too { Minor::parse_balance } else { Minor::parse_amount };
            let parsed = parse(text, currency);
            parsed.map_err(|cause| check.refuse(&format!("{at}/{name}"), cause.to_string())).ok()
        };
        let amount = amount_of("amount", self.amount, false);
        let fee = self.fee.map(|fee| amount_of("fee", fee, true));
        let amount = check.finish(amount)?;
        let fee = fee.flatten().filter(|fee| *fee > Minor::ZERO);
        Ok(Order { from: self.from, to: self.to, currency, amount, fee, note: self.note })
    }
}

/// Move money from one wallet to another
///
/// A fee goes to the operator on top of the amount; both move or neither.
#[utoipa::path(
    post, path = "/wallet/transfer", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = OrderBody<'static>,
    responses(
        (status = 201, description = "Moved", body = TransferBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_transfer(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Response> {
    let draft = body.read::<OrderBody<'_>>()?.draft("")?;
    let known = app.wallets.facts_of_many([draft.from, draft.to].into_iter()).await?;
    let order = draft.order("", &known, &caller)?;
    created(app.wallets.transfer(order, asked(&caller, &key, &context)).await?)
}

/// Look at a transfer
#[utoipa::path(
    get, path = "/wallet/transfer/{id}", tag = "wallet",
    params(("id" = String, Path, description = "The transfer", example = "17")),
    responses(
        (status = 200, description = "The transfer", body = TransferBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_transfer(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Response> {
    let transfer = app.wallets.transfer_seen_by(&caller, id).await?;
    Ok(axum::Json(TransferBody::of(transfer)?).into_response())
}
