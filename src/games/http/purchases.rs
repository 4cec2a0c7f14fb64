//! Routes `/api/games/{id}/purchase` and `/api/games/{id}/refund`, with which users buy and refund games.

use axum::Extension;
use axum::extract::{FromRef, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticated, Authenticator, TrustedProxies};
use crate::error::{Error, Result};
use crate::games::Games;
use crate::games::code;
use crate::games::purchase::{Purchase, PurchaseRequest, Refunded};
use crate::http::body::OptionalJsonBody;
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::{id, string};
use crate::http::origin::Origin;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{GameId, UserId};
use crate::wallet::http::body::{number, optional_decimal, request_meta};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(purchase_game)).routes(routes!(refund_game))
}

#[derive(Deserialize, ToSchema)]
struct PurchaseGame<'a> {
    /// Price that the buyer was shown. If the current price differs, the purchase is refused, and the error contains
    /// the current price.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "19.99")]
    expected_price: RawField<'a>,
    /// Currency to pay in; the main currency of the game if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "EUR")]
    currency: RawField<'a>,
    /// Id of the user who receives the game; the buyer if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2")]
    gift_to: RawField<'a>,
    /// Discount code to apply to the price.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "WINTER20")]
    code: RawField<'a>,
}

/// A game that was bought.
#[derive(Serialize, ToSchema)]
#[schema(as = GamePurchase)]
#[serde(rename_all = "camelCase")]
struct PurchaseBody {
    #[schema(example = 1)]
    game_id: i64,
    /// Id of the user who owns the game now.
    #[schema(example = "2")]
    user_id: String,
    /// Amount that the buyer was charged.
    #[schema(value_type = f64, example = 19.99)]
    price: JsonDecimal,
    /// Tax that the price includes.
    #[schema(value_type = f64, example = 3.19)]
    tax: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    /// Id of the transfer that paid for the game; null for a free game.
    #[schema(required, example = "17")]
    transfer_id: Option<String>,
}

impl TryFrom<&Purchase> for PurchaseBody {
    type Error = Error;

    fn try_from(purchase: &Purchase) -> Result<Self> {
        let Purchase { game, recipient, currency, price, tax, transfer, .. } = purchase;
        Ok(Self {
            game_id: game.0,
            user_id: recipient.to_string(),
            price: number(*price, *currency)?,
            tax: number(*tax, *currency)?,
            currency: currency.code().to_owned(),
            transfer_id: transfer.map(|id| id.to_string()),
        })
    }
}

/// Parses the id of a user.
fn user_id(raw: &str) -> Result<UserId, String> {
    id(raw).map(UserId).ok_or_else(|| "must be the id of a user".to_owned())
}

/// Buy a game
///
/// Charges the main wallet of the signed-in user and adds the game to the user's library, in a single transaction. If
/// the field `gift_to` names another user, adds the game to the library of that user instead.
#[utoipa::path(
    post, path = "/api/games/{id}/purchase", tag = "games", security(("bearer" = [])),
    params(("id" = i64, Path, description = "The game", example = 1), IdempotencyKey),
    request_body(content = Option<PurchaseGame<'static>>),
    responses((status = 201, description = "Bought", body = PurchaseBody), Problems),
)]
async fn purchase_game(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(game): Path<GameId>,
    key: IdempotencyKey,
    origin: Origin,
    Extension(context): Extension<RequestContext>,
    body: OptionalJsonBody,
) -> Result<Replayable<PurchaseBody>> {
    let PurchaseGame { expected_price, currency, gift_to, code } = body.read()?;
    let mut validator = Validator::default();
    let expected_price = optional_decimal(&mut validator, "/expected_price", &expected_price);
    let currency = validator
        .optional("/currency", &currency, |raw| games.currencies().supported(&string(raw)?));
    let gift_to = validator.optional("/gift_to", &gift_to, user_id);
    let code = validator.optional("/code", &code, |raw| {
        code::normalized(&string(raw)?).ok_or_else(|| "is not a discount code".to_owned())
    });
    validator.finish(Some(()))?;
    let meta = request_meta(&caller, &key, &context);
    let request = PurchaseRequest { game, currency, gift_to, code, address: origin.address };
    let purchase = games.purchase(&request, expected_price, meta).await?;
    Ok(Replayable::created(PurchaseBody::try_from(&purchase)?, None, purchase.replayed))
}

#[derive(Deserialize, ToSchema)]
struct RefundGame<'a> {
    /// Id of the user who received the game as a gift; if absent, the buyer kept the game.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2")]
    gift_to: RawField<'a>,
}

/// A purchase that was refunded.
#[derive(Serialize, ToSchema)]
#[schema(as = GameRefund)]
#[serde(rename_all = "camelCase")]
struct RefundBody {
    #[schema(example = 1)]
    game_id: i64,
    /// Refunded amount, including the prices of downloadable content that is refunded with the game.
    #[schema(value_type = f64, example = 19.99)]
    refunded: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    /// Id of the transfer that returned the money; null for a free game.
    #[schema(required, example = "18")]
    transfer_id: Option<String>,
}

impl TryFrom<&Refunded> for RefundBody {
    type Error = Error;

    fn try_from(refund: &Refunded) -> Result<Self> {
        let Refunded { game, currency, amount, transfer, .. } = refund;
        Ok(Self {
            game_id: game.0,
            refunded: number(*amount, *currency)?,
            currency: currency.code().to_owned(),
            transfer_id: transfer.map(|id| id.to_string()),
        })
    }
}

/// Refund a game
///
/// The buyer can refund a game for a limited time after the purchase (setting `--refund-window`). A refund removes the
/// game and its downloadable content from the library of the owner.
#[utoipa::path(
    post, path = "/api/games/{id}/refund", tag = "games", security(("bearer" = [])),
    params(("id" = i64, Path, description = "The game", example = 1), IdempotencyKey),
    request_body(content = Option<RefundGame<'static>>),
    responses((status = 200, description = "Refunded", body = RefundBody), Problems),
)]
async fn refund_game(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(game): Path<GameId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: OptionalJsonBody,
) -> Result<Replayable<RefundBody>> {
    let RefundGame { gift_to } = body.read()?;
    let mut validator = Validator::default();
    let gift_to = validator.optional("/gift_to", &gift_to, user_id);
    validator.finish(Some(()))?;
    let meta = request_meta(&caller, &key, &context);
    let refund = games.refund(game, gift_to, meta).await?;
    Ok(Replayable::ok(RefundBody::try_from(&refund)?, refund.replayed))
}
