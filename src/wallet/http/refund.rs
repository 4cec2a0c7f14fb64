//! `/wallet/refund`: money back.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{asked, decimal, id};
use super::transfer::{TransferBody, created};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::{Check, JsonBody, Member};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_refund))
}

#[derive(Deserialize, ToSchema)]
struct CreateRefund<'a> {
    /// The transfer whose money goes back.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "17")]
    transfer: Member<'a>,
    /// A part of it; everything that is left when absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2.50")]
    amount: Member<'a>,
}

/// Return money the way it came
///
/// All refunds of a transfer together never exceed it. Its fee stays with the operator.
#[utoipa::path(
    post, path = "/wallet/refund", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = CreateRefund<'static>,
    responses(
        (status = 201, description = "Returned", body = TransferBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_refund(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Response> {
    let CreateRefund { transfer, amount } = body.read()?;
    let mut check = Check::default();
    let transfer = check.required("/transfer", &transfer, |raw| {
        id(raw).ok_or_else(|| "must be the id of a transfer".to_owned())
    });
    let amount = decimal(&mut check, "/amount", &amount, false);
    let transfer = check.finish(transfer)?;
    created(app.wallets.refund(transfer, amount, asked(&caller, &key, &context)).await?)
}
