//! `POST /wallet/probe`: makes a harmless test transfer for monitors, with the same code as customer transfers.

use axum::Extension;
use axum::extract::{FromRef, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::request_meta;
use crate::auth::{Authenticator, Caller};
use crate::error::Result;
use crate::http::body::EmptyBody;
use crate::http::context::RequestContext;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::wallet::Wallets;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(post_canary))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Probed)]
struct CanaryBody {
    /// Id of the transfer.
    #[schema(example = "17")]
    transfer: String,
}

/// Make a test transfer
///
/// Moves one minor unit (such as a cent) between two system accounts and back; no customer's balance changes. A monitor
/// that sends this request to the public address every few seconds detects the failures that customers would notice. If
/// the server has closed access (`--access=closed`), the request needs an API key, but the key needs no scope.
#[utoipa::path(
    post, path = "/wallet/probe", tag = "wallet",
    params(IdempotencyKey),
    responses(
        (status = 201, description = "The ledger has written the test transfer", body = CanaryBody),
        Problems,
    ),
)]
async fn post_canary(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    EmptyBody: EmptyBody,
) -> Result<Replayable<CanaryBody>> {
    let transfer = wallets.post_canary(request_meta(&caller, &key, &context)).await?;
    let body = CanaryBody { transfer: transfer.id.to_string() };
    Ok(Replayable::created(body, None, transfer.replayed))
}
