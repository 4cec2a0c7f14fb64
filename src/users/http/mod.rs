//! Routes under `/api/users`, which register users, sign them in and out, and get and update their profiles.

mod body;

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::body::{NewUser, ProfileBody, RequiredFields};
use crate::auth::{Authenticated, Authenticator, TrustedProxies, bearer};
use crate::error::{Error, Result};
use crate::http::body::{JsonBody, OptionalJsonBody};
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::{moment, text};
use crate::http::origin::Origin;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::UserId;
use crate::secret::Secret;

use super::token::TOKEN_MAX;
use super::{User, Users, names};
use crate::users::UserRole;

/// Longest user name or e-mail address in a sign-in request, in characters.
const LOGIN_MAX: usize = 254;

/// Maximum length of the password in a sign-in request, in characters. It is above the maximum length of a new password.
const PASSWORD_MAX: usize = 1_000;

/// Returns the routes of the internal listener, through which other services get users.
pub fn internal<S>() -> axum::Router<S>
where
    Users: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    axum::Router::new().route("/internal/user/{id}", axum::routing::get(get_internal_user))
}

pub fn routes<S>() -> OpenApiRouter<S>
where
    Users: FromRef<S>,
    Authenticator: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(register_user))
        .routes(routes!(create_user))
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(get_signed_in_user))
        .routes(routes!(get_user, update_user))
}

#[derive(Serialize, ToSchema)]
struct RegisteredUser<'a> {
    #[schema(example = "User registered successfully")]
    message: &'a str,
    #[schema(example = "ada")]
    username: &'a str,
    #[schema(example = "1")]
    id: String,
}

/// Register with a user name
#[utoipa::path(
    post, path = "/api/users/register", tag = "users",
    params(IdempotencyKey),
    request_body = ProfileBody<'static>,
    responses(
        (status = 200, description = "Registered", body = RegisteredUser<'static>),
        Problems,
    ),
)]
async fn register_user(
    State(users): State<Users>,
    key: IdempotencyKey,
    origin: Origin,
    body: JsonBody,
) -> Result<Response> {
    let NewUser { profile, password } = body
        .read::<ProfileBody<'_>>()?
        .new_user(&RequiredFields::Username)
        .map_err(body::into_profile_error)?;
    let registered = users.register(&profile, password.as_ref(), &key, origin).await?;
    let username = profile.username.as_deref().unwrap_or_default();
    let body = RegisteredUser {
        message: "User registered successfully",
        username,
        id: registered.id.to_string(),
    };
    Ok(Replayable::ok(body, registered.replayed).into_response())
}

#[derive(Serialize, ToSchema)]
struct CreatedUser<'a> {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "ada@example.com")]
    email: &'a str,
}

/// Register with names and an age
///
/// With open access (`--access=open`), the password is optional. A user without a password cannot sign in and is
/// treated as a guest, and another user may register with the same e-mail address. An admin can set a password later.
#[utoipa::path(
    post, path = "/api/users", tag = "users",
    params(IdempotencyKey),
    request_body = ProfileBody<'static>,
    responses(
        (status = 201, description = "Registered", body = CreatedUser<'static>),
        Problems,
    ),
)]
async fn create_user(
    State(users): State<Users>,
    key: IdempotencyKey,
    origin: Origin,
    body: JsonBody,
) -> Result<Response> {
    let required = RequiredFields::NamesAndAge(users.age_min());
    let NewUser { profile, password } =
        body.read::<ProfileBody<'_>>()?.new_user(&required).map_err(body::into_profile_error)?;
    let registered = users.register(&profile, password.as_ref(), &key, origin).await?;
    let body = CreatedUser { id: registered.id.to_string(), email: &profile.email };
    Ok(Replayable::created(body, None, registered.replayed).into_response())
}

#[derive(Deserialize, ToSchema)]
struct Login<'a> {
    /// E-mail address of the user; required unless `username` is given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada@example.com")]
    email: RawField<'a>,
    /// Name of the user; required unless `email` is given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada")]
    username: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "correct horse battery")]
    password: RawField<'a>,
}

#[derive(Serialize, ToSchema)]
struct LoggedIn<'a> {
    #[schema(example = "Login successful")]
    message: &'a str,
    /// Credential for the `Authorization: Bearer` header.
    #[schema(example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.x")]
    token: &'a str,
}

/// Sign in
///
/// After several failed attempts, the server rejects further attempts with status 429 for a time that grows with each
/// failure. An unknown name and a wrong password get the same response.
#[utoipa::path(
    post, path = "/api/users/login", tag = "users",
    request_body = Login<'static>,
    responses(
        (status = 200, description = "Signed in", body = LoggedIn<'static>),
        Problems,
    ),
)]
async fn login(State(users): State<Users>, origin: Origin, body: JsonBody) -> Result<Response> {
    let Login { email, username, password } = body.read()?;
    let (pointer, member) =
        if username.raw().is_some() { ("/username", username) } else { ("/email", email) };
    let (name, password) = login_fields(pointer, &member, &password)?;
    let token = users.sign_in(&name, &password, origin).await?;
    let body = LoggedIn { message: "Login successful", token: token.reveal() };
    Ok(axum::Json(body).into_response())
}

/// Validates the name and the password of a login, and returns them.
pub(crate) fn login_fields(
    pointer: &str,
    name: &RawField<'_>,
    password: &RawField<'_>,
) -> Result<(String, Secret)> {
    let mut validator = Validator::default();
    // The name is normalized like the names of a registration. A text that cannot be normalized cannot be the name of a
    // user.
    let name = validator.required(pointer, name, |raw| {
        let name = text(raw, LOGIN_MAX)?;
        Ok(names::normalized_email(&name).unwrap_or(name))
    });
    let password = validator.required("/password", password, |raw| text(raw, PASSWORD_MAX));
    let (name, password) = validator.finish(name.zip(password))?;
    Ok((name, Secret::from(password)))
}

#[derive(Deserialize, Default, ToSchema)]
struct Logout<'a> {
    /// Token of the session to end; required unless the token is in the `Authorization` header.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.x")]
    token: RawField<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Done)]
struct MessageBody<'a> {
    #[schema(example = "Logout successful")]
    message: &'a str,
}

/// Sign out
///
/// Ends the session whose token the request contains. From then on, every server process rejects the token.
#[utoipa::path(
    post, path = "/api/users/logout", tag = "users",
    request_body(content = Option<Logout<'static>>, description = "Not needed if the token is in the `Authorization` header"),
    responses(
        (status = 200, description = "Signed out", body = MessageBody<'static>),
        Problems,
    ),
)]
async fn logout(
    State(users): State<Users>,
    origin: Origin,
    headers: HeaderMap,
    body: OptionalJsonBody,
) -> Result<Response> {
    let body = body.read::<Logout<'_>>()?;
    let token = body.token.raw().and_then(|raw| text(raw, TOKEN_MAX).ok()).map(Secret::from);
    let token = token.map_or_else(|| bearer(&headers), |token| Ok(Some(token)));
    let token = token.ok().flatten().ok_or(Error::NoToken)?;
    users.sign_out(&token, origin).await?;
    Ok(axum::Json(MessageBody { message: "Logout successful" }).into_response())
}

/// A user with their profile.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
#[serde(rename_all = "camelCase")]
pub struct UserBody {
    #[schema(example = "1")]
    id: String,
    #[schema(required, example = "ada")]
    username: Option<String>,
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(required, example = "Ada")]
    first_name: Option<String>,
    #[schema(required, example = "Lovelace")]
    last_name: Option<String>,
    #[schema(required, example = 36)]
    age: Option<i16>,
    #[schema(value_type = UserRole)]
    role: &'static str,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
}

impl TryFrom<User> for UserBody {
    type Error = Error;

    fn try_from(user: User) -> Result<Self> {
        let User { id, profile, role, created_at } = user;
        Ok(Self {
            id: id.to_string(),
            username: profile.username,
            email: profile.email,
            first_name: profile.first_name,
            last_name: profile.last_name,
            age: profile.age,
            role: role.name(),
            created_at: moment(created_at)?,
        })
    }
}

/// Get a user
///
/// Users can get their own profile; other callers need the scope `users:read`.
#[utoipa::path(
    get, path = "/api/users/{id}", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id of the user", example = "1")),
    responses(
        (status = 200, description = "The user", body = UserBody),
        Problems,
    ),
)]
async fn get_user(
    State(users): State<Users>,
    Authenticated(caller): Authenticated,
    Path(id): Path<UserId>,
) -> Result<Response> {
    Ok(axum::Json(UserBody::try_from(users.get(&caller, id).await?)?).into_response())
}

/// Get the signed-in user
#[utoipa::path(
    get, path = "/api/users/me", tag = "users", security(("bearer" = [])),
    responses(
        (status = 200, description = "The user", body = UserBody),
        Problems,
    ),
)]
async fn get_signed_in_user(
    State(users): State<Users>,
    Authenticated(caller): Authenticated,
) -> Result<Response> {
    let user = users.get(&caller, caller.require_user()?).await?;
    Ok(axum::Json(UserBody::try_from(user)?).into_response())
}

/// Returns a user to another service, which needs a credential even on the internal listener.
async fn get_internal_user(
    State(users): State<Users>,
    Authenticated(caller): Authenticated,
    Path(id): Path<UserId>,
) -> Result<Response> {
    let user = users.get_internal(&caller, id).await?;
    Ok(axum::Json(UserBody::try_from(user)?).into_response())
}

/// Update a user
///
/// Absent fields stay as they are. A new password ends all sessions of the user, except the session that sets the
/// password.
#[utoipa::path(
    put, path = "/api/users/{id}", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id of the user", example = "1")),
    request_body = ProfileBody<'static>,
    responses(
        (status = 200, description = "Updated", body = MessageBody<'static>, example = json!({ "message": "Profile updated successfully" })),
        Problems,
    ),
)]
async fn update_user(
    State(users): State<Users>,
    Authenticated(caller): Authenticated,
    origin: Origin,
    Path(id): Path<UserId>,
    body: JsonBody,
) -> Result<Response> {
    let age_min = users.age_min_for_update(&caller, id).await?;
    let changes = body.read::<ProfileBody<'_>>()?.changes(age_min);
    let changes = changes.map_err(body::into_profile_error)?;
    users.update(&caller, origin, id, &changes).await?;
    Ok(axum::Json(MessageBody { message: "Profile updated successfully" }).into_response())
}
