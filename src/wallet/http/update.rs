//! `PATCH` and `DELETE /wallet/{id}`: update, freeze and close a wallet.

use axum::Extension;
use axum::extract::{FromRef, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::request_meta;
use super::wallets::WalletDetailBody;
use crate::auth::{Authenticator, Caller};
use crate::error::Result;
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::extract::{Path, Validator};
use crate::http::fields::{metadata, text};
use crate::http::problem::Problems;
use crate::http::replay::{self, Replayable};
use crate::idempotency_key::IdempotencyKey;
use crate::ids::WalletId;
use crate::wallet::Wallets;
use crate::wallet::update::{UpdatedWallet, WalletChanges};

/// Longest label of a wallet, in characters.
const LABEL_MAX: usize = 200;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(update_wallet)).routes(routes!(close_wallet))
}

/// Members to update. Absent members stay unchanged; null removes the label or the metadata.
#[derive(Deserialize, ToSchema)]
struct UpdateWallet<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "savings")]
    label: Option<&'a RawValue>,
    /// Any JSON object of at most 1024 bytes. The server stores and returns it.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>, example = json!({ "tier": "gold" }))]
    metadata: Option<&'a RawValue>,
    /// Whether to freeze (true) or unfreeze (false) the wallet. Money can enter a frozen wallet, but cannot leave it.
    #[schema(example = false)]
    freeze: Option<bool>,
}

/// Deserializes a member that may be `null`. The result is `Some` even for `null`, so that only an absent member is
/// `None`.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl UpdateWallet<'_> {
    fn changes(&self) -> Result<WalletChanges> {
        let mut validator = Validator::default();
        let mut changes = WalletChanges { freeze: self.freeze, ..WalletChanges::default() };
        if let Some(raw) = self.label.map(RawValue::get) {
            let label = if raw == "null" { Ok(None) } else { text(raw, LABEL_MAX).map(Some) };
            changes.label = label.map_err(|detail| validator.refuse("/label", detail)).ok();
        }
        if let Some(raw) = self.metadata.map(RawValue::get) {
            let own = if raw == "null" { Ok(None) } else { metadata(raw).map(Some) };
            changes.metadata = own.map_err(|detail| validator.refuse("/metadata", detail)).ok();
        }
        validator.finish(Some(changes))
    }
}

/// Update a wallet
///
/// Changes the label and the metadata of the wallet, and freezes or unfreezes the wallet.
#[utoipa::path(
    patch, path = "/wallet/{id}", tag = "wallet",
    params(
        ("id" = String, Path, description = "Id of the wallet", example = "1"),
        IdempotencyKey,
    ),
    request_body = UpdateWallet<'static>,
    responses(
        (status = 200, description = "The updated wallet", body = WalletDetailBody),
        Problems,
    ),
)]
async fn update_wallet(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<WalletId>,
    body: JsonBody,
) -> Result<Replayable<WalletDetailBody>> {
    let changes = body.read::<UpdateWallet<'_>>()?.changes()?;
    let meta = request_meta(&caller, &key, &context);
    let UpdatedWallet { balance, detail, replayed } = wallets.update(id, &changes, meta).await?;
    Ok(Replayable::ok((balance, detail).try_into()?, replayed))
}

/// Close a wallet
///
/// The balance must be zero. The history remains available. A closed wallet cannot be reopened.
#[utoipa::path(
    delete, path = "/wallet/{id}", tag = "wallet",
    params(
        ("id" = String, Path, description = "Id of the wallet", example = "1"),
        IdempotencyKey,
    ),
    responses(
        (status = 204, description = "The wallet is closed"),
        Problems,
    ),
)]
async fn close_wallet(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<WalletId>,
) -> Result<Response> {
    let replayed = wallets.close(id, request_meta(&caller, &key, &context)).await?;
    Ok(replay::no_content(replayed))
}
