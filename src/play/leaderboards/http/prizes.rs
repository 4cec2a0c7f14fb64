//! Routes that list and fund the accounts from which prizes are paid, and the route that retries unpaid prizes.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::board_name;
use crate::auth::{Authenticator, Caller, Scope};
use crate::error::{Error, Result};
use crate::http::body::{EmptyBody, JsonBody};
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::string;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ledger::currency::Currencies;
use crate::play::leaderboards::Leaderboards;
use crate::play::leaderboards::prize::PrizeAccount;
use crate::wallet::http::body::number;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Leaderboards: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(list_prize_accounts))
        .routes(routes!(fund_prize_account))
        .routes(routes!(retry_prizes))
}

#[derive(Serialize, ToSchema)]
#[schema(as = PrizeAccount)]
pub(in crate::play::leaderboards) struct PrizeAccountBody {
    #[schema(example = "EUR")]
    currency: String,
    #[schema(value_type = f64, example = 500.00)]
    balance: JsonDecimal,
    /// Id of the deposit; present only in the response to a deposit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "17")]
    transfer: Option<String>,
}

impl TryFrom<PrizeAccount> for PrizeAccountBody {
    type Error = Error;

    fn try_from(account: PrizeAccount) -> Result<Self> {
        Ok(Self {
            currency: account.currency.code().to_owned(),
            balance: number(account.balance, account.currency)?,
            transfer: account.transfer.map(|transfer| transfer.to_string()),
        })
    }
}

/// List the prize accounts
///
/// Returns the accounts from which the prizes of leaderboards are paid. Leaves out accounts without money. Requires the
/// scope `admin`.
#[utoipa::path(
    get, path = "/api/prize-account", tag = "play", security(("bearer" = [])),
    responses(
        (status = 200, description = "The prize accounts that have money", body = [PrizeAccountBody]),
        Problems,
    ),
)]
async fn list_prize_accounts(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
) -> Result<Response> {
    let accounts = leaderboards.prize_accounts(&caller).await?.into_iter();
    let bodies = accounts.map(PrizeAccountBody::try_from).collect::<Result<Vec<_>>>()?;
    Ok(axum::Json(bodies).into_response())
}

#[derive(Deserialize, ToSchema)]
struct FundPrizeAccount<'a> {
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "EUR")]
    currency: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "500.00")]
    amount: RawField<'a>,
}

/// Fund a prize account
///
/// Deposits money from outside the system into the prize account of a currency, from which the prizes in this currency
/// are paid. Requires the scope `admin`.
#[utoipa::path(
    post, path = "/api/prize-account/deposit", tag = "play", security(("bearer" = [])),
    params(IdempotencyKey),
    request_body = FundPrizeAccount<'static>,
    responses(
        (status = 200, description = "The account with its new balance", body = PrizeAccountBody),
        Problems,
    ),
)]
async fn fund_prize_account(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Response> {
    caller.require_scope(Scope::Admin)?;
    let FundPrizeAccount { currency, amount } = body.read()?;
    let mut validator = Validator::default();
    let currency = validator
        .required("/currency", &currency, |raw| leaderboards.currencies().supported(&string(raw)?));
    let amount = validator
        .required("/amount", &amount, |raw| Currencies::amount_text(raw).map(str::to_owned));
    let (currency, amount) = validator.finish(currency.zip(amount))?;
    let account = leaderboards.fund_prizes(currency, &amount, &caller, &key).await?;
    let replayed = account.replayed;
    Ok(Replayable::ok(PrizeAccountBody::try_from(account)?, replayed).into_response())
}

#[derive(Serialize, ToSchema)]
#[schema(as = RetriedPrizes)]
struct RetriedPrizesBody {
    /// Number of prizes that the server tries to pay again.
    #[schema(example = 1)]
    prizes: u64,
}

/// Retry the unpaid prizes
///
/// Tries again to pay the unpaid prizes of a leaderboard. First fix the cause, for example an empty prize account.
/// Requires the scope `admin`.
#[utoipa::path(
    post, path = "/api/leaderboards/{board}/prizes/retry", tag = "play", security(("bearer" = [])),
    params(
        ("board" = String, Path, description = "Name of the leaderboard", example = "weekly"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: each prize is paid once"),
    ),
    responses(
        (status = 200, description = "The number of prizes that the server tries to pay again", body = RetriedPrizesBody),
        Problems,
    ),
)]
async fn retry_prizes(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
    Path(board): Path<String>,
    EmptyBody: EmptyBody,
) -> Result<Response> {
    caller.require_scope(Scope::Admin)?;
    let prizes = leaderboards.retry_prizes(&board_name(&board)?, &caller).await?;
    Ok(axum::Json(RetriedPrizesBody { prizes }).into_response())
}
