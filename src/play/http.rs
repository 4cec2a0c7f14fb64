//! Routes under `/api/wallet`: deposit to a player's wallet, withdraw from it, and get its balance. Amounts are in
//! minor units, such as cents.

use axum::extract::{FromRef, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::UntypedJsonBody;
use crate::http::context::RequestContext;
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::string;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::PlayerId;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::{AmountError, Minor};
use crate::wallet::Wallets;
use crate::wallet::http::body::request_meta;
use crate::wallet::main_wallet::MainPosting;

pub fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(deposit_to_player))
        .routes(routes!(withdraw_from_player))
        .routes(routes!(get_player_balance))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = MovePlayerMoney)]
#[serde(rename_all = "camelCase")]
struct MoveMoneyBody<'a> {
    /// Id of the player: the id of a user, or any name for a guest. The field can also be called `user_id` or `userID`.
    #[serde(borrow, default, alias = "user_id", alias = "userID")]
    #[schema(required, value_type = String, example = "2")]
    user_id: RawField<'a>,
    /// Amount as a whole number of minor units, such as cents.
    #[serde(borrow, default)]
    #[schema(required, value_type = i64, example = 12300)]
    amount: RawField<'a>,
    /// Code of the currency; the default currency if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "EUR")]
    currency: RawField<'a>,
}

/// A validated request to deposit to, or withdraw from, a player's wallet.
pub(super) struct MoveMoney {
    pub player: PlayerId,
    pub amount: Minor,
    pub currency: Currency,
}

impl MoveMoneyBody<'_> {
    fn validate(&self, wallets: &Wallets) -> Result<MoveMoney> {
        let mut validator = Validator::default();
        let player = validator.required("/userId", &self.user_id, player_id);
        let amount = validator.required("/amount", &self.amount, minor_units);
        let currency = match self.currency.raw() {
            None => Some(wallets.default_currency()),
            Some(_) => validator.optional("/currency", &self.currency, |raw| {
                wallets.currencies().supported(&string(raw)?)
            }),
        };
        let (player, (amount, currency)) = validator.finish(player.zip(amount.zip(currency)))?;
        Ok(MoveMoney { player, amount, currency })
    }
}

/// Parses the id of a player: a string or, from older clients, a whole number.
fn player_id(raw: &str) -> Result<PlayerId, String> {
    let is_number = raw.bytes().all(|byte| byte.is_ascii_digit());
    let text = if is_number { raw.to_owned() } else { string(raw)? };
    PlayerId::try_from(text).map_err(|cause| cause.to_string())
}

fn minor_units(raw: &str) -> Result<Minor, String> {
    let text = Currencies::amount_text(raw)?;
    Minor::parse_minor_units(text).map_err(|cause| match cause {
        AmountError::TooManyDecimals(_) => {
            "must be a whole number: amounts are in minor units, such as cents".to_owned()
        }
        other => other.to_string(),
    })
}

/// Balance of a player after a deposit or a withdrawal.
#[derive(Serialize, ToSchema)]
#[schema(as = PlayerMoneyMoved)]
#[serde(rename_all = "camelCase")]
struct MovedBody {
    #[schema(value_type = String, example = "2")]
    user_id: PlayerId,
    /// Balance in minor units, such as cents.
    #[schema(example = 12300)]
    balance: i64,
    #[schema(example = "EUR")]
    currency: String,
    /// Id of the transfer that moved the money.
    #[schema(example = "17")]
    transfer_id: String,
}

impl MovedBody {
    fn reply(player: PlayerId, posting: &MainPosting) -> Replayable<Self> {
        let body = Self {
            user_id: player,
            balance: posting.balance.0,
            currency: posting.currency.code().to_owned(),
            transfer_id: posting.transfer.to_string(),
        };
        Replayable::ok(body, posting.replayed)
    }
}

/// Deposit to a player's wallet
///
/// The first deposit opens the player's wallet. If the server has open access (`--access=open`), a deposit to the
/// wallet of a guest requires no credential. A deposit to the wallet of a user with a password always requires one.
#[utoipa::path(
    post, path = "/api/wallet/deposit", tag = "play",
    params(IdempotencyKey),
    request_body = MoveMoneyBody<'static>,
    responses(
        (status = 200, description = "The new balance", body = MovedBody),
        Problems,
    ),
)]
async fn deposit_to_player(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: UntypedJsonBody,
) -> Result<Replayable<MovedBody>> {
    let MoveMoney { player, amount, currency } =
        body.read::<MoveMoneyBody<'_>>()?.validate(&wallets)?;
    let meta = request_meta(&caller, &key, &context);
    let posting = wallets.deposit_main(&player, currency, amount, meta).await;
    let posting = posting.map_err(at_user_id)?;
    Ok(MovedBody::reply(player, &posting))
}

/// Withdraw from a player's wallet
#[utoipa::path(
    post, path = "/api/wallet/withdraw", tag = "play",
    params(IdempotencyKey),
    request_body = MoveMoneyBody<'static>,
    responses(
        (status = 200, description = "The new balance", body = MovedBody),
        Problems,
    ),
)]
async fn withdraw_from_player(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: UntypedJsonBody,
) -> Result<Replayable<MovedBody>> {
    let MoveMoney { player, amount, currency } =
        body.read::<MoveMoneyBody<'_>>()?.validate(&wallets)?;
    let meta = request_meta(&caller, &key, &context);
    let posting = wallets.withdraw_main(&player, currency, amount, meta).await;
    let posting = posting.map_err(at_user_id)?;
    Ok(MovedBody::reply(player, &posting))
}

fn at_user_id(error: Error) -> Error {
    error.with_pointer(|_| Some("/userId".to_owned()))
}

#[derive(Deserialize, IntoParams)]
struct PlayerBalanceQuery {
    /// Code of the currency; the default currency if absent.
    #[param(example = "EUR")]
    currency: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlayerBalance)]
#[serde(rename_all = "camelCase")]
struct PlayerBalanceBody {
    #[schema(value_type = String, example = "2")]
    user_id: PlayerId,
    /// Balance in minor units, such as cents; 0 before the first deposit.
    #[schema(example = 12300)]
    balance: i64,
    #[schema(example = "EUR")]
    currency: String,
}

/// Get a player's balance
///
/// If the server has open access (`--access=open`), the balances of guests are public. The balance of a registered user
/// is visible to this user and to callers with the scope `wallet:read`.
#[utoipa::path(
    get, path = "/api/wallet/balance/{user_id}", tag = "play",
    params(("user_id" = String, Path, description = "Id of the player", example = "2"), PlayerBalanceQuery),
    responses(
        (status = 200, description = "The balance", body = PlayerBalanceBody),
        Problems,
    ),
)]
async fn get_player_balance(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(player): Path<PlayerId>,
    Query(query): Query<PlayerBalanceQuery>,
) -> Result<Json<PlayerBalanceBody>> {
    let currency = match query.currency {
        None => wallets.default_currency(),
        Some(code) => {
            let found = wallets.currencies().supported(&code);
            found.map_err(|detail| Error::field("?currency", detail))?
        }
    };
    let found = wallets.main_balance(&caller, &player, currency).await?;
    Ok(Json(PlayerBalanceBody {
        user_id: player,
        balance: found.balance.0,
        currency: currency.code().to_owned(),
    }))
}
