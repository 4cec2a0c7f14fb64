//! Routes for the sales of a game and for discount codes.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::amount;
use crate::auth::{Authenticated, Authenticator};
use crate::error::{Error, Result};
use crate::games::Games;
use crate::games::catalog::Price;
use crate::games::code::{self, CODE_MAX, CodeDiscount, NewCode, USES_PER_USER_MAX};
use crate::games::sale::{NAME_MAX, Sale, SaleDiscount, require_window};
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::{self, id, moment, stored_moment, string};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::GameId;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Rate;
use crate::wallet::http::body::number;

/// Highest limit that a request can set on the copies sold in a sale, or on the uses of a discount code.
const LIMIT_MAX: i32 = 1_000_000_000;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(list_sales))
        .routes(routes!(put_sale, delete_sale))
        .routes(routes!(create_code))
}

fn percentage(raw: &str) -> Result<Rate, String> {
    let rate = Rate::parse_share(Currencies::amount_text(raw)?)?;
    if rate > Rate::ZERO { Ok(rate) } else { Err("must be more than zero".to_owned()) }
}

fn limit(raw: &str) -> Result<i32, String> {
    let limit = raw.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("must be a whole number from 1 to {LIMIT_MAX}"))
}

fn is_sale_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Refuses a request with both a percentage and a currency, because a percentage applies in every currency.
fn refuse_unused_currency(
    validator: &mut Validator,
    percent: &RawField<'_>,
    currency: &RawField<'_>,
) {
    if percent.raw().is_some() && currency.raw().is_some() {
        validator.refuse("/currency", "must be absent if percent is given");
    }
}

#[derive(Deserialize, ToSchema)]
struct PutSale<'a> {
    /// Percentage off the price in every currency; give either `percent` or `price`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "20")]
    percent: RawField<'a>,
    /// Price during the sale, in one currency; give either `price` or `percent`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "15.99")]
    price: RawField<'a>,
    /// Currency of `price`; the main currency of the game if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "EUR")]
    currency: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "2026-01-31T12:00:00Z", format = DateTime)]
    starts_at: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "2026-02-07T12:00:00Z", format = DateTime)]
    ends_at: RawField<'a>,
    /// Maximum number of copies that are sold at the sale price; unlimited if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<i32>, example = 500)]
    budget: RawField<'a>,
}

impl PutSale<'_> {
    fn validate(&self, name: String, games: &Games, main: Currency) -> Result<Sale> {
        let mut validator = Validator::default();
        let percent = validator.optional("/percent", &self.percent, percentage);
        refuse_unused_currency(&mut validator, &self.percent, &self.currency);
        let currency = match self.currency.raw() {
            None => Some(main),
            Some(_) => validator.optional("/currency", &self.currency, |raw| {
                games.currencies().supported(&string(raw)?)
            }),
        };
        let price = currency.and_then(|currency| {
            let amount = validator.optional("/price", &self.price, |raw| amount(raw, currency))?;
            Some(Price { currency, amount })
        });
        if self.percent.raw().is_some() == self.price.raw().is_some() {
            validator.refuse("/percent", "must be given if price is absent, and only then");
        }
        let starts_at = validator.required("/starts_at", &self.starts_at, stored_moment);
        let ends_at = validator.required("/ends_at", &self.ends_at, stored_moment);
        let budget = validator.optional("/budget", &self.budget, limit);
        let discount = percent.map(SaleDiscount::Percent).or(price.map(SaleDiscount::Price));
        let ((starts_at, ends_at), discount) =
            validator.finish(starts_at.zip(ends_at).zip(discount))?;
        require_window(starts_at, ends_at)?;
        Ok(Sale { name, discount, starts_at, ends_at, budget, left: budget })
    }
}

/// A sale of a game.
#[derive(Serialize, ToSchema)]
#[schema(as = GameSale)]
struct SaleBody {
    #[schema(example = "winter")]
    name: String,
    /// Percentage off the price in every currency.
    #[schema(required, value_type = Option<f64>, example = 20)]
    percent: Option<JsonDecimal>,
    /// Price during the sale, in one currency.
    #[schema(required, value_type = Option<f64>, example = 15.99)]
    price: Option<JsonDecimal>,
    #[schema(required, example = "EUR")]
    currency: Option<String>,
    #[schema(example = "2026-01-31T12:00:00Z", format = DateTime)]
    starts_at: String,
    #[schema(example = "2026-02-07T12:00:00Z", format = DateTime)]
    ends_at: String,
    /// Maximum number of copies that are sold at the sale price; null if unlimited.
    #[schema(required, example = 500)]
    budget: Option<i32>,
    /// Number of copies that can still be sold at the sale price; null if unlimited.
    #[schema(required, example = 37)]
    left: Option<i32>,
}

impl TryFrom<&Sale> for SaleBody {
    type Error = Error;

    fn try_from(sale: &Sale) -> Result<Self> {
        let (percent, price) = match sale.discount {
            SaleDiscount::Percent(rate) => (Some(rate), None),
            SaleDiscount::Price(price) => (None, Some(price)),
        };
        let percent = percent.map(|rate| JsonDecimal::new(rate.percent())).transpose();
        Ok(Self {
            name: sale.name.clone(),
            percent: percent?,
            price: price.map(|price| number(price.amount, price.currency)).transpose()?,
            currency: price.map(|price| price.currency.code().to_owned()),
            starts_at: moment(sale.starts_at)?,
            ends_at: moment(sale.ends_at)?,
            budget: sale.budget,
            left: sale.left,
        })
    }
}

/// Create or change a sale
///
/// A sale lowers the price of a game from `starts_at` to `ends_at`, according to the database clock. If several sales
/// run at the same time, the lowest price applies. Requires the scope `games:write`, unless the caller is the
/// publisher.
#[utoipa::path(
    put, path = "/api/games/{id}/sales/{sale}", tag = "games", security(("bearer" = [])),
    params(
        ("id" = i64, Path, description = "The game", example = 1),
        ("sale" = String, Path, description = "A name of 1 to 64 letters, digits, `.`, `_` and `-`", example = "winter"),
    ),
    request_body = PutSale<'static>,
    responses(
        (status = 200, description = "Changed", body = SaleBody),
        (status = 201, description = "Created", body = SaleBody),
        Problems,
    ),
)]
async fn put_sale(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path((game, name)): Path<(GameId, String)>,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Response> {
    if !is_sale_name(&name) {
        let detail = "must have 1 to 64 letters, digits, dots, underscores and hyphens";
        return Err(Error::field("sale", detail));
    }
    let currency = games.managed_currency(game, &caller).await?;
    let sale = body.read::<PutSale<'_>>()?.validate(name, &games, currency)?;
    let put = games.put_sale(game, &sale, &caller, context.stored_trace()).await?;
    let status = if put.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(SaleBody::try_from(&put.sale)?)).into_response())
}

#[derive(Serialize, ToSchema)]
#[schema(as = GameSales)]
struct SalesBody {
    sales: Vec<SaleBody>,
}

/// List the sales of a game
///
/// Returns all sales of the game, past and future, latest start first. Requires the scope `games:write`, unless the
/// caller is the publisher.
#[utoipa::path(
    get, path = "/api/games/{id}/sales", tag = "games", security(("bearer" = [])),
    params(("id" = i64, Path, description = "The game", example = 1)),
    responses((status = 200, description = "The sales, at most 1,000", body = SalesBody), Problems),
)]
async fn list_sales(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(game): Path<GameId>,
) -> Result<Json<SalesBody>> {
    let sales = games.sales(game, &caller).await?;
    let sales = sales.iter().map(SaleBody::try_from).collect::<Result<_>>()?;
    Ok(Json(SalesBody { sales }))
}

/// Delete a sale
///
/// Buyers keep the copies that they bought at the sale price. Requires the scope `games:write`, unless the caller is
/// the publisher.
#[utoipa::path(
    delete, path = "/api/games/{id}/sales/{sale}", tag = "games", security(("bearer" = [])),
    params(
        ("id" = i64, Path, description = "The game", example = 1),
        ("sale" = String, Path, description = "The sale", example = "winter"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: deletion is idempotent"),
    ),
    responses((status = 204, description = "Deleted"), Problems),
)]
async fn delete_sale(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path((game, name)): Path<(GameId, String)>,
    Extension(context): Extension<RequestContext>,
) -> Result<StatusCode> {
    if !is_sale_name(&name) {
        return Err(Error::NotFound("sale"));
    }
    games.delete_sale(game, &name, &caller, context.stored_trace()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
struct CreateCode<'a> {
    /// Code of 1 to 32 letters, digits, `-` and `_`, in upper or lower case. If absent, the server generates a code.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "WINTER20")]
    code: RawField<'a>,
    /// Percentage off the price; give either `percent` or `amount`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "20")]
    percent: RawField<'a>,
    /// Amount off the price; give either `amount` or `percent`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "5.00")]
    amount: RawField<'a>,
    /// Currency of `amount`; the default currency if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "EUR")]
    currency: RawField<'a>,
    /// If present, the code is valid only for games of this publisher. A publisher can create codes for its own games
    /// only.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "1")]
    publisher: RawField<'a>,
    /// If present, the code is valid only for this game.
    #[serde(borrow, default)]
    #[schema(value_type = Option<i64>, example = 1)]
    game: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00Z", format = DateTime)]
    starts_at: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2026-02-07T12:00:00Z", format = DateTime)]
    ends_at: RawField<'a>,
    /// Maximum number of uses in total; unlimited if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<i32>, example = 1000)]
    uses: RawField<'a>,
    /// Maximum number of uses per user, at most 1,000; unlimited if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<i32>, example = 1)]
    uses_per_user: RawField<'a>,
}

impl CreateCode<'_> {
    fn validate(&self, games: &Games) -> Result<NewCode> {
        let mut validator = Validator::default();
        let code = validator.optional("/code", &self.code, |raw| {
            code::normalized(&string(raw)?).ok_or_else(|| {
                format!("must have 1 to {CODE_MAX} letters, digits, hyphens and underscores")
            })
        });
        let percent = validator.optional("/percent", &self.percent, percentage);
        refuse_unused_currency(&mut validator, &self.percent, &self.currency);
        let currency = match self.currency.raw() {
            None => Some(games.default_currency()),
            Some(_) => validator.optional("/currency", &self.currency, |raw| {
                games.currencies().supported(&string(raw)?)
            }),
        };
        let off = currency.and_then(|currency| {
            let amount = validator.optional("/amount", &self.amount, |raw| {
                let amount = amount(raw, currency)?;
                let is_positive = amount > crate::ledger::money::Minor::ZERO;
                if is_positive { Ok(amount) } else { Err("must be more than zero".to_owned()) }
            });
            Some(Price { currency, amount: amount? })
        });
        if self.percent.raw().is_some() == self.amount.raw().is_some() {
            validator.refuse("/percent", "must be given if amount is absent, and only then");
        }
        let publisher = validator.optional("/publisher", &self.publisher, fields::publisher);
        let game = validator.optional("/game", &self.game, |raw| {
            id(raw).map(GameId).ok_or_else(|| "must be the id of a game".to_owned())
        });
        if game.is_some() && publisher.is_some() {
            validator.refuse("/publisher", "must be absent if game is given");
        }
        let starts_at = validator.optional("/starts_at", &self.starts_at, stored_moment);
        let ends_at = validator.optional("/ends_at", &self.ends_at, stored_moment);
        let uses = validator.optional("/uses", &self.uses, limit);
        let uses_per_user = validator.optional("/uses_per_user", &self.uses_per_user, |raw| {
            let uses = limit(raw)?;
            let is_within = uses <= USES_PER_USER_MAX;
            if is_within { Ok(uses) } else { Err(format!("must be at most {USES_PER_USER_MAX}")) }
        });
        let discount = percent.map(CodeDiscount::Percent).or(off.map(CodeDiscount::Amount));
        let discount = validator.finish(discount)?;
        if let Some((starts_at, ends_at)) = starts_at.zip(ends_at) {
            require_window(starts_at, ends_at)?;
        }
        Ok(NewCode { code, discount, publisher, game, starts_at, ends_at, uses, uses_per_user })
    }
}

/// A discount code.
#[derive(Serialize, ToSchema)]
#[schema(as = DiscountCode)]
struct CodeBody {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "WINTER20")]
    code: String,
}

/// Create a discount code
///
/// Buyers send the code in the field `code` of a purchase request. Requires the scope `games:write`, unless the caller
/// is the publisher of the games for which the code is valid.
#[utoipa::path(
    post, path = "/api/codes", tag = "games", security(("bearer" = [])),
    params(IdempotencyKey),
    request_body = CreateCode<'static>,
    responses((status = 201, description = "The code", body = CodeBody), Problems),
)]
async fn create_code(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Replayable<CodeBody>> {
    let new = body.read::<CreateCode<'_>>()?.validate(&games)?;
    let created = games.create_code(&new, &caller, &key).await?;
    let body = CodeBody { id: created.id.to_string(), code: created.code };
    Ok(Replayable::created(body, None, created.replayed))
}
