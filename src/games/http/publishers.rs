//! Routes under `/api/publishers`, which create, get and change publishers: users who sell games.

use axum::Json;
use axum::extract::{FromRef, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticated, Authenticator, Scope};
use crate::error::{Error, Result};
use crate::games::Games;
use crate::games::publisher::{NAME_MAX, Publisher};
use crate::http::body::JsonBody;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::{id, text};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{PublisherId, UserId};
use crate::ledger::currency::Currencies;
use crate::ledger::money::Rate;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(create_publisher))
        .routes(routes!(get_publisher, update_publisher))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Publisher)]
struct PublisherBody {
    #[schema(example = "1")]
    id: String,
    /// Id of the user who acts for the publisher.
    #[schema(example = "2")]
    user: String,
    #[schema(example = "Nova Games")]
    name: String,
    /// Percentage that the operator keeps of each sale; null means the setting `--store-fee`.
    #[schema(required, value_type = Option<f64>, example = 12.5)]
    fee: Option<JsonDecimal>,
}

impl TryFrom<&Publisher> for PublisherBody {
    type Error = Error;

    fn try_from(publisher: &Publisher) -> Result<Self> {
        let Publisher { id, user, name, fee, .. } = publisher;
        let fee = fee.map(|fee| JsonDecimal::new(fee.percent())).transpose();
        Ok(Self { id: id.to_string(), user: user.to_string(), name: name.clone(), fee: fee? })
    }
}

#[derive(Deserialize, ToSchema)]
struct CreatePublisher<'a> {
    /// Id of the user who acts for the publisher.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "2")]
    user: RawField<'a>,
    /// Name of the publisher, 1 to 100 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "Nova Games")]
    name: RawField<'a>,
    /// Percentage that the operator keeps of each sale; the setting `--store-fee` if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "12.5")]
    fee: RawField<'a>,
}

fn name(raw: &str) -> Result<String, String> {
    text(raw, NAME_MAX)
}

fn percentage(raw: &str) -> Result<Rate, String> {
    Rate::parse_share(Currencies::amount_text(raw)?)
}

/// Create a publisher
///
/// Makes a user a publisher. The publisher earns a share of each sale of its games. Requires the scope `admin`.
#[utoipa::path(
    post, path = "/api/publishers", tag = "games", security(("bearer" = [])),
    params(IdempotencyKey),
    request_body = CreatePublisher<'static>,
    responses((status = 201, description = "The publisher", body = PublisherBody), Problems),
)]
async fn create_publisher(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Replayable<PublisherBody>> {
    // The scope is checked before the body, so that a caller without the scope gets no validation errors.
    caller.require_scope(Scope::Admin)?;
    let body: CreatePublisher<'_> = body.read()?;
    let mut validator = Validator::default();
    let user = validator.required("/user", &body.user, |raw| {
        id(raw).map(UserId).ok_or_else(|| "must be the id of a user".to_owned())
    });
    let name = validator.required("/name", &body.name, name);
    let fee = validator.optional("/fee", &body.fee, percentage);
    let (user, name) = validator.finish(user.zip(name))?;
    let publisher = games.add_publisher(user, &name, fee, &caller, &key).await?;
    let location = format!("/api/publishers/{}", publisher.id);
    let body = PublisherBody::try_from(&publisher)?;
    Ok(Replayable::created(body, location, publisher.replayed))
}

/// Get a publisher
///
/// Requires the scope `games:write`, unless the caller is the publisher.
#[utoipa::path(
    get, path = "/api/publishers/{id}", tag = "games", security(("bearer" = [])),
    params(("id" = String, Path, description = "The publisher", example = "1")),
    responses((status = 200, description = "The publisher", body = PublisherBody), Problems),
)]
async fn get_publisher(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(id): Path<PublisherId>,
) -> Result<Json<PublisherBody>> {
    PublisherBody::try_from(&games.publisher(id, &caller).await?).map(Json)
}

#[derive(Deserialize, ToSchema)]
struct UpdatePublisher<'a> {
    /// Name of the publisher, 1 to 100 characters.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "Nova Games")]
    name: RawField<'a>,
    /// Percentage that the operator keeps of each sale from now on.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "12.5")]
    fee: RawField<'a>,
}

/// Change a publisher
///
/// Absent fields stay unchanged. Requires the scope `admin`.
#[utoipa::path(
    put, path = "/api/publishers/{id}", tag = "games", security(("bearer" = [])),
    params(("id" = String, Path, description = "The publisher", example = "1")),
    request_body = UpdatePublisher<'static>,
    responses((status = 200, description = "The publisher", body = PublisherBody), Problems),
)]
async fn update_publisher(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(id): Path<PublisherId>,
    body: JsonBody,
) -> Result<Json<PublisherBody>> {
    caller.require_scope(Scope::Admin)?;
    let body: UpdatePublisher<'_> = body.read()?;
    let mut validator = Validator::default();
    let name = validator.optional("/name", &body.name, name);
    let fee = validator.optional("/fee", &body.fee, percentage);
    validator.finish(Some(()))?;
    let publisher = games.change_publisher(id, name.as_deref(), fee, &caller).await?;
    PublisherBody::try_from(&publisher).map(Json)
}
