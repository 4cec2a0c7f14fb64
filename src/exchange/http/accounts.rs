//! Routes `/exchange/register` and `/exchange/login`. The users are shared with the rest of the API, but the request
//! and response bodies differ.

use axum::Json;
use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::TrustedProxies;
use crate::error::{Error, ExchangeRefusal, Result};
use crate::http::body::UntypedJsonBody;
use crate::http::extract::RawField;
use crate::http::origin::Origin;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::users::Users;
use crate::users::http::{NewUser, ProfileBody, RequiredFields, login_fields};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Users: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(register_trader)).routes(routes!(login_trader))
}

#[derive(Serialize, ToSchema)]
#[schema(as = RegisteredTrader)]
struct RegisteredBody {
    #[schema(example = 2)]
    id: i64,
}

/// Register for the exchange
#[utoipa::path(
    post, path = "/exchange/register", tag = "exchange",
    params(IdempotencyKey),
    request_body = ProfileBody<'static>,
    responses((status = 200, description = "Registered", body = RegisteredBody), Problems),
)]
async fn register_trader(
    State(users): State<Users>,
    key: IdempotencyKey,
    origin: Origin,
    body: UntypedJsonBody,
) -> Result<Replayable<RegisteredBody>> {
    let NewUser { profile, password } =
        body.read::<ProfileBody<'_>>()?.new_user(&RequiredFields::Username)?;
    let registered = users.register(&profile, password.as_ref(), &key, origin).await;
    let registered = registered.map_err(into_exchange_error)?;
    Ok(Replayable::ok(RegisteredBody { id: registered.id.0 }, registered.replayed))
}

/// Converts the error for an invalid profile to the error that the exchange returns. The status is 409 if the only
/// fault is that the user name or e-mail address is taken; otherwise it is 422.
fn into_exchange_error(error: Error) -> Error {
    match error {
        Error::InvalidProfile(fields) if fields.iter().all(|field| field.detail == "is taken") => {
            let is_name = fields.iter().any(|field| field.pointer == "/username");
            let taken = if is_name { "this user name" } else { "this e-mail address" };
            ExchangeRefusal::NameTaken(taken).into()
        }
        Error::InvalidProfile(fields) => Error::Invalid(fields),
        other => other,
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TraderLogin)]
struct LoginBody<'a> {
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "ada")]
    username: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "correct horse battery")]
    password: RawField<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TraderLoggedIn)]
struct LoggedInBody<'a> {
    #[schema(example = "OK")]
    status: &'static str,
    /// Token for the header `Authorization: Bearer` of later requests. The header `Authorization` of the response
    /// contains the same token.
    #[schema(example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.x")]
    token: &'a str,
}

/// Sign in to the exchange
#[utoipa::path(
    post, path = "/exchange/login", tag = "exchange",
    params(("Idempotency-Key" = Option<String>, Header, description = "Not needed: each login begins a new session")),
    request_body = LoginBody<'static>,
    responses((status = 200, description = "Signed in", body = LoggedInBody<'static>), Problems),
)]
async fn login_trader(
    State(users): State<Users>,
    origin: Origin,
    body: UntypedJsonBody,
) -> Result<Response> {
    let LoginBody { username, password } = body.read()?;
    let (name, password) = login_fields("/username", &username, &password)?;
    let token = users.sign_in(&name, &password, origin).await?;
    let body = Json(LoggedInBody { status: "OK", token: token.reveal() });
    let mut response = body.into_response();
    let header = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
    let mut header = header.map_err(|cause| Error::Internal(cause.into()))?;
    header.set_sensitive(true);
    response.headers_mut().insert(header::AUTHORIZATION, header);
    Ok(response)
}
