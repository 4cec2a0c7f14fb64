//! `PATCH` and `DELETE /wallet/{id}`: names, freezing, the end.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{asked, metadata, text};
use super::look::{DetailBody, detail};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::{Check, JsonBody, Path};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::wallet::WalletId;
use crate::wallet::change::Changes;

/// Longest label, in characters.
const LABEL_MAX: usize = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(update_wallet)).routes(routes!(close_wallet))
}

/// What is absent stays as it is; null takes a label or metadata away.
#[derive(Deserialize, ToSchema)]
struct UpdateWallet<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "savings")]
    label: Option<&'a RawValue>,
    /// Anything of your own, at most 1024 bytes.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>, example = json!({ "tier": "gold" }))]
    metadata: Option<&'a RawValue>,
    /// Whether money may only come in.
    #[schema(example = false)]
    freeze: Option<bool>,
}

/// Tells `null` from nothing.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl UpdateWallet<'_> {
    fn changes(&self) -> Result<Changes> {
        let mut check = Check::default();
        let mut changes = Changes { freeze: self.freeze, ..Changes::default() };
        if let Some(raw) = self.label.map(RawValue::get) {
            let label = if raw == "null" { Ok(None) } else { text(raw, LABEL_MAX).map(Some) };
            changes.label = label.map_err(|detail| check.refuse("/label", detail)).ok();
        }
        if let Some(raw) = self.metadata.map(RawValue::get) {
            let own = if raw == "null" { Ok(None) } else { metadata(raw).map(Some) };
            changes.metadata = own.map_err(|detail| check.refuse("/metadata", detail)).ok();
        }
        check.finish(Some(changes))
    }
}

/// Change the label or the metadata of a wallet, freeze it, unfreeze it
#[utoipa::path(
    patch, path = "/wallet/{id}", tag = "wallet",
    params(
        ("id" = String, Path, description = "The wallet", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body"),
    ),
    request_body = UpdateWallet<'static>,
    responses(
        (status = 200, description = "The wallet after it", body = DetailBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn update_wallet(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<WalletId>,
    body: JsonBody,
) -> Result<Response> {
    let changes = body.read::<UpdateWallet<'_>>()?.changes()?;
    app.wallets.change(id, &changes, asked(&caller, &key, &context)).await?;
    detail(&app, id).await
}

/// Close a wallet for good
///
/// It must be empty and hold nothing. Its history stays.
#[utoipa::path(
    delete, path = "/wallet/{id}", tag = "wallet",
    params(
        ("id" = String, Path, description = "The wallet", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key"),
    ),
    responses(
        (status = 204, description = "Closed, now or before"),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn close_wallet(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<WalletId>,
) -> Result<StatusCode> {
    app.wallets.close(id, asked(&caller, &key, &context)).await?;
    Ok(StatusCode::NO_CONTENT)
}
