//! `POST /wallet/probe`: what the synthetic probe asks for, on the same way as every customer's transfer.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{asked, replayable};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(probe))
}

#[derive(Serialize, ToSchema)]
struct Probed {
    /// The transfer that was made.
    #[schema(example = "17")]
    transfer: String,
}

/// Prove that money moves
///
/// A minor unit goes from one system account to another and back: nobody's wallet is touched.
/// A monitor that calls this every few seconds through the public address knows what its users know.
/// Where access is closed, any API key will do.
#[utoipa::path(
    post, path = "/wallet/probe", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key")),
    responses(
        (status = 201, description = "Money moves", body = Probed),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn probe(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
) -> Result<Response> {
    let posted = app.wallets.probe(asked(&caller, &key, &context)).await?;
    let body = Probed { transfer: posted.first_seq.to_string() };
    Ok(replayable(StatusCode::CREATED, &body, posted.replayed))
}
