//! `/wallet/transfer`: create a transfer between two wallets, and get a transfer.

use axum::extract::{FromRef, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{note, number, optional_decimal, request_meta, required_decimal, wallet_id};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::moment;
use crate::http::problem::{ArchiveProblem, Problems};
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::TransferId;
use crate::ledger::transfer::TransferKind;
use crate::wallet::Wallets;
use crate::wallet::transfer::{Note, Transfer, TransferRequest, wallet_of};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(create_transfer)).routes(routes!(get_transfer))
}

/// A movement of money between wallets, or between a wallet and the outside world.
#[derive(Serialize, ToSchema)]
#[schema(as = Transfer)]
pub(super) struct TransferBody {
    #[schema(example = "17")]
    id: String,
    #[schema(value_type = TransferKind)]
    kind: &'static str,
    /// Id of the paying wallet; null for the outside world.
    #[schema(required, example = "1")]
    from: Option<String>,
    /// Id of the receiving wallet; null for the outside world.
    #[schema(required, example = "2")]
    to: Option<String>,
    #[schema(value_type = f64, example = 5.00)]
    amount: JsonDecimal,
    /// The operator's fee, on top of the amount.
    #[schema(value_type = f64, example = 0.10)]
    fee: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "for the coffee")]
    memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({ "order": 7 }))]
    metadata: Option<Box<RawValue>>,
    /// Id of the earlier transfer, such as a hold, that this transfer completes or refunds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "12")]
    linked: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    at: String,
    /// Trace id of the request that made the transfer, for finding the request in logs and traces.
    #[schema(required, example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: Option<String>,
    /// Amount that can still be refunded. Present only in the response of `GET /wallet/transfer/{id}`, and only if the
    /// transfer can be refunded at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 5.00)]
    refundable: Option<JsonDecimal>,
}

impl TryFrom<Transfer> for TransferBody {
    type Error = Error;

    fn try_from(transfer: Transfer) -> Result<Self> {
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
            refundable: None,
        })
    }
}

/// Builds the response to a request that made a transfer.
pub(super) fn created(transfer: Transfer) -> Result<Replayable<TransferBody>> {
    let (location, replayed) = (format!("/wallet/transfer/{}", transfer.id), transfer.replayed);
    Ok(Replayable::created(TransferBody::try_from(transfer)?, location, replayed))
}

#[derive(Deserialize, ToSchema)]
pub(super) struct CreateTransfer<'a> {
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "1")]
    from: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "2")]
    to: RawField<'a>,
    /// A decimal, as a number or a string, with at most as many decimal places as the currency has.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "5.00")]
    amount: RawField<'a>,
    /// A fee for the operator, on top of the amount.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "0.10")]
    fee: RawField<'a>,
    /// Memo of the transfer, at most 500 characters.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "for the coffee")]
    memo: RawField<'a>,
    /// Any JSON object of at most 1024 bytes. The server stores and returns it.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>, example = json!({ "order": 7 }))]
    metadata: RawField<'a>,
}

impl<'a> CreateTransfer<'a> {
    /// Validates the JSON members of this transfer. `at` is the JSON pointer of the transfer in the request body.
    pub(super) fn validate(&self, at: &str) -> Result<TransferRequest<'a>> {
        let mut validator = Validator::within(at);
        let from = validator.required("/from", &self.from, wallet_id);
        let to = validator.required("/to", &self.to, wallet_id);
        if from.is_some() && from == to {
            validator.refuse("/to", "must be another wallet");
        }
        let amount = required_decimal(&mut validator, "/amount", &self.amount);
        let fee = optional_decimal(&mut validator, "/fee", &self.fee);
        let note = note(&mut validator, &self.memo, &self.metadata);
        let ((from, to), amount) = validator.finish(from.zip(to).zip(amount))?;
        Ok(TransferRequest { from, to, amount, fee, note })
    }
}

/// Create a transfer
///
/// Moves money from one wallet to another. The fee goes to the operator. Either both the amount and the fee move, or
/// neither does.
#[utoipa::path(
    post, path = "/wallet/transfer", tag = "wallet",
    params(IdempotencyKey),
    request_body = CreateTransfer<'static>,
    responses(
        (status = 201, description = "The transfer", body = TransferBody),
        Problems,
    ),
)]
async fn create_transfer(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<TransferBody>> {
    let body = body.read::<CreateTransfer<'_>>()?;
    let meta = request_meta(&caller, &key, &context);
    created(wallets.transfer(body.validate("")?, meta).await?)
}

/// Get a transfer
#[utoipa::path(
    get, path = "/wallet/transfer/{id}", tag = "wallet",
    params(("id" = String, Path, description = "Id of the transfer", example = "17")),
    responses(
        (status = 200, description = "The transfer", body = TransferBody),
        Problems,
        ArchiveProblem,
    ),
)]
async fn get_transfer(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<TransferId>,
) -> Result<Json<TransferBody>> {
    let (transfer, left) = wallets.get_transfer(&caller, id).await?;
    let refundable = left.map(|left| number(left, transfer.currency)).transpose()?;
    Ok(Json(TransferBody { refundable, ..TransferBody::try_from(transfer)? }))
}
