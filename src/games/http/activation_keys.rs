//! Routes that create and redeem activation keys of games.

use axum::extract::{FromRef, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticated, Authenticator, TrustedProxies};
use crate::error::Result;
use crate::games::Games;
use crate::games::activation_key::{KEYS_MAX, KeyBatch};
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::string;
use crate::http::origin::Origin;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::GameId;
use crate::wallet::http::body::request_meta;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(create_activation_keys))
        .routes(routes!(redeem_activation_key))
}

#[derive(Deserialize, ToSchema)]
struct CreateActivationKeys<'a> {
    /// Number of keys, from 1 to 1,000.
    #[serde(borrow, default)]
    #[schema(required, value_type = i32, example = 100)]
    count: RawField<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ActivationKey)]
struct ActivationKeyBody {
    #[schema(example = "1")]
    id: String,
    /// The key itself. Absent in the response to a repeated request, because the server stores only a hash of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "7QZ4M-0D2WK-9RT3X-B8HNC-V5JE1")]
    key: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ActivationKeys)]
struct ActivationKeysBody {
    keys: Vec<ActivationKeyBody>,
}

/// Create activation keys
///
/// Each key adds the game to the library of the user who redeems it. If the game has a limited number of copies, each
/// key takes one. The response to a repeated request contains the ids of the keys, but not the keys themselves.
/// Requires the scope `games:write`, unless the caller is the publisher.
#[utoipa::path(
    post, path = "/api/games/{id}/keys", tag = "games", security(("bearer" = [])),
    params(("id" = i64, Path, description = "The game", example = 1), IdempotencyKey),
    request_body = CreateActivationKeys<'static>,
    responses((status = 201, description = "The keys", body = ActivationKeysBody), Problems),
)]
async fn create_activation_keys(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(game): Path<GameId>,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Replayable<ActivationKeysBody>> {
    // The permission is checked before the body, so that a caller that may not manage the game gets no validation
    // errors.
    games.managed_currency(game, &caller).await?;
    let CreateActivationKeys { count } = body.read()?;
    let mut validator = Validator::default();
    let count = validator.required("/count", &count, |raw| {
        let count = raw.parse().ok().filter(|count| (1..=KEYS_MAX).contains(count));
        count.ok_or_else(|| format!("must be a whole number from 1 to {KEYS_MAX}"))
    });
    let count = validator.finish(count)?;
    let KeyBatch { keys, replayed } = games.make_keys(game, count, &caller, &key).await?;
    let keys = keys.into_iter().map(|(id, key)| ActivationKeyBody {
        id: id.to_string(),
        key: key.map(|key| key.reveal().to_owned()),
    });
    Ok(Replayable::created(ActivationKeysBody { keys: keys.collect() }, None, replayed))
}

#[derive(Deserialize, ToSchema)]
struct RedeemActivationKey<'a> {
    /// The key, in upper or lower case, with or without hyphens.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "7QZ4M-0D2WK-9RT3X-B8HNC-V5JE1")]
    key: RawField<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RedeemedKey)]
#[serde(rename_all = "camelCase")]
struct RedeemedBody {
    #[schema(example = 1)]
    game_id: i64,
    #[schema(example = "2")]
    user_id: String,
}

/// Redeem an activation key
///
/// Adds the game of the key to the library of the signed-in user. After several attempts with unknown keys, the user
/// has to wait before each further attempt.
#[utoipa::path(
    post, path = "/api/games/redeem", tag = "games", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Not needed: a key can be redeemed only once")),
    request_body = RedeemActivationKey<'static>,
    responses((status = 200, description = "The game is in the library", body = RedeemedBody), Problems),
)]
async fn redeem_activation_key(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    key: IdempotencyKey,
    origin: Origin,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Json<RedeemedBody>> {
    let user = caller.require_user()?;
    let RedeemActivationKey { key: activation_key } = body.read()?;
    let mut validator = Validator::default();
    let activation_key = validator.required("/key", &activation_key, string);
    let activation_key = validator.finish(activation_key)?;
    let meta = request_meta(&caller, &key, &context);
    let game = games.redeem(&activation_key, origin.address, meta).await?;
    Ok(Json(RedeemedBody { game_id: game.0, user_id: user.to_string() }))
}
