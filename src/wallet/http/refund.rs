//! `/wallet/refund`: refund a transfer.

use axum::Extension;
use axum::extract::{FromRef, State};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{optional_decimal, request_meta};
use super::transfer::{TransferBody, created};
use crate::auth::{Authenticator, Caller};
use crate::error::Result;
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::extract::{RawField, Validator};
use crate::http::fields::id;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::TransferId;
use crate::wallet::Wallets;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(create_refund))
}

#[derive(Deserialize, ToSchema)]
struct CreateRefund<'a> {
    /// Id of the transfer to refund.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "17")]
    transfer: RawField<'a>,
    /// Amount to refund; if absent, everything that has not been refunded yet.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2.50")]
    amount: RawField<'a>,
}

/// Refund a transfer
///
/// All refunds of a transfer together never exceed its amount. The fee is not refunded.
#[utoipa::path(
    post, path = "/wallet/refund", tag = "wallet",
    params(IdempotencyKey),
    request_body = CreateRefund<'static>,
    responses(
        (status = 201, description = "The refund", body = TransferBody),
        Problems,
    ),
)]
async fn create_refund(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<TransferBody>> {
    let CreateRefund { transfer, amount } = body.read()?;
    let mut validator = Validator::default();
    let transfer = validator.required("/transfer", &transfer, |raw| {
        id(raw).map(TransferId).ok_or_else(|| "must be the id of a transfer".to_owned())
    });
    let amount = optional_decimal(&mut validator, "/amount", &amount);
    let transfer = validator.finish(transfer)?;
    created(wallets.refund(transfer, amount, request_meta(&caller, &key, &context)).await?)
}
