//! `/api/users`: register, sign in, sign out, look at oneself.

mod body;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{Given, ProfileBody, Wanted};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::{Known, Origin, Scope, bearer};
use crate::http::extract::{Check, JsonBody, Member, Path};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::secret::Secret;
use crate::wallet::http::body::{moment, replayable, text};

use super::User;

/// Longest name that somebody may try to sign in with, in characters.
const LOGIN_MAX: usize = 254;

/// Longest password that is looked at, in characters: longer than any that was taken.
const PASSWORD_MAX: usize = 1_000;

/// For other services, on the internal listener.
pub fn internal() -> axum::Router<App> {
    axum::Router::new().route("/internal/user/{id}", axum::routing::get(get_internal_user))
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register_user))
        .routes(routes!(create_user))
        .routes(routes!(login))
        .routes(routes!(logout))
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
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and profile")),
    request_body = ProfileBody<'static>,
    responses(
        (status = 200, description = "Registered", body = RegisteredUser<'static>),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn register_user(
    State(app): State<App>,
    key: IdempotencyKey,
    origin: Origin,
    body: JsonBody,
) -> Result<Response> {
    let wanted = Wanted { username: true, age: None };
    let Given { profile, password } = body
        .read::<ProfileBody<'_>>()
        .and_then(|body| body.whole(&wanted))
        .map_err(body::as_profile)?;
    let done = app.users.register(&profile, &password, &key, origin).await?;
    let username = profile.username.as_deref().unwrap_or_default();
    let body = RegisteredUser {
        message: "User registered successfully",
        username,
        id: done.id.to_string(),
    };
    Ok(replayable(StatusCode::OK, &body, done.replayed))
}

#[derive(Serialize, ToSchema)]
struct CreatedUser<'a> {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "ada@example.com")]
    email: &'a str,
}

/// Register with a name and an age
#[utoipa::path(
    post, path = "/api/users", tag = "users",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and profile")),
    request_body = ProfileBody<'static>,
    responses(
        (status = 201, description = "Registered", body = CreatedUser<'static>),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_user(
    State(app): State<App>,
    key: IdempotencyKey,
    origin: Origin,
    body: JsonBody,
) -> Result<Response> {
    let wanted = Wanted { username: false, age: Some(app.users.age_min()) };
    let Given { profile, password } = body
        .read::<ProfileBody<'_>>()
        .and_then(|body| body.whole(&wanted))
        .map_err(body::as_profile)?;
    let done = app.users.register(&profile, &password, &key, origin).await?;
    let body = CreatedUser { id: done.id.to_string(), email: &profile.email };
    Ok(replayable(StatusCode::CREATED, &body, done.replayed))
}

#[derive(Deserialize, ToSchema)]
struct Login<'a> {
    /// This or `username`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada@example.com")]
    email: Member<'a>,
    /// This or `email`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada")]
    username: Member<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "correct horse battery")]
    password: Member<'a>,
}

#[derive(Serialize, ToSchema)]
struct LoggedIn<'a> {
    #[schema(example = "Login successful")]
    message: &'a str,
    /// For the header `Authorization: Bearer`.
    #[schema(example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.x")]
    token: &'a str,
}

/// Sign in
///
/// Who fails too often waits (429), each time longer. An unknown name and a wrong password are answered alike.
#[utoipa::path(
    post, path = "/api/users/login", tag = "users",
    request_body = Login<'static>,
    responses(
        (status = 200, description = "Signed in", body = LoggedIn<'static>),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn login(State(app): State<App>, origin: Origin, body: JsonBody) -> Result<Response> {
    let Login { email, username, password } = body.read()?;
    let mut check = Check::default();
    let (pointer, member) =
        if username.raw().is_some() { ("/username", username) } else { ("/email", email) };
    let name = check.required(pointer, &member, |raw| text(raw, LOGIN_MAX));
    let password = check.required("/password", &password, |raw| text(raw, PASSWORD_MAX));
    let (name, password) = check.finish(name.zip(password))?;
    let token = app.users.sign_in(&name, &Secret::from(password), origin).await?;
    let body = LoggedIn { message: "Login successful", token: token.reveal() };
    Ok(axum::Json(body).into_response())
}

#[derive(Deserialize, Default, ToSchema)]
struct Logout<'a> {
    /// The token, where it is not in the header `Authorization`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.x")]
    token: Member<'a>,
}

#[derive(Serialize, ToSchema)]
struct Done<'a> {
    #[schema(example = "Logout successful")]
    message: &'a str,
}

/// Sign out
///
/// The token is dead at once, on every process.
#[utoipa::path(
    post, path = "/api/users/logout", tag = "users",
    request_body(content = Option<Logout<'static>>, description = "Not needed where the header has the token"),
    responses(
        (status = 200, description = "Signed out", body = Done<'static>),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn logout(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Response> {
    let said = serde_json::from_slice::<Logout<'_>>(&body).ok();
    let said = said.and_then(|said| text(said.token.raw()?, PASSWORD_MAX).ok()).map(Secret::from);
    let token = said.map_or_else(|| bearer(&headers), |token| Ok(Some(token)));
    let token = token.ok().flatten().ok_or(Error::NoToken)?;
    app.users.sign_out(&token, origin).await?;
    Ok(axum::Json(Done { message: "Logout successful" }).into_response())
}

/// A user, as they see themselves.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
#[serde(rename_all = "camelCase")]
pub struct UserBody {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "ada")]
    username: Option<String>,
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(example = "Ada")]
    first_name: Option<String>,
    #[schema(example = "Lovelace")]
    last_name: Option<String>,
    #[schema(example = 36)]
    age: Option<i16>,
    /// `user` or `admin`.
    #[schema(example = "user")]
    role: &'static str,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    created_at: String,
}

impl UserBody {
    pub fn of(user: User) -> Result<Self> {
        let User { id, profile, is_admin, created_at } = user;
        Ok(Self {
            id: id.to_string(),
            username: profile.username,
            email: profile.email,
            first_name: profile.first_name,
            last_name: profile.last_name,
            age: profile.age,
            role: if is_admin { "admin" } else { "user" },
            created_at: moment(created_at)?,
        })
    }
}

/// Look at a user
///
/// Oneself; others need `users:read`.
#[utoipa::path(
    get, path = "/api/users/{id}", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user", example = "1")),
    responses(
        (status = 200, description = "The user", body = UserBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_user(
    State(app): State<App>,
    Known(caller): Known,
    Path(id): Path<i64>,
) -> Result<Response> {
    caller.is_user_or_has(id, Scope::UsersRead)?;
    Ok(axum::Json(UserBody::of(app.users.get(id).await?)?).into_response())
}

/// The same for other services: only with a key, even behind the wall.
async fn get_internal_user(
    State(app): State<App>,
    Known(caller): Known,
    Path(id): Path<i64>,
) -> Result<Response> {
    caller.needs(Scope::UsersRead)?;
    Ok(axum::Json(UserBody::of(app.users.get(id).await?)?).into_response())
}

/// Change a user
///
/// What is absent stays as it is. A new password ends every other session.
#[utoipa::path(
    put, path = "/api/users/{id}", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user", example = "1")),
    request_body = ProfileBody<'static>,
    responses(
        (status = 200, description = "Changed", body = Done<'static>, example = json!({ "message": "Profile updated successfully" })),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn update_user(
    State(app): State<App>,
    Known(caller): Known,
    origin: Origin,
    Path(id): Path<i64>,
    body: JsonBody,
) -> Result<Response> {
    caller.is_user_or_has(id, Scope::Admin)?;
    let before = app.users.get(id).await?.profile;
    let least = if before.age.is_some() { app.users.age_min() } else { 0 };
    let changes = body.read::<ProfileBody<'_>>().and_then(|body| body.changes(least));
    let changes = changes.map_err(body::as_profile)?;
    app.users.update(id, &changes, &caller, origin).await?;
    Ok(axum::Json(Done { message: "Profile updated successfully" }).into_response())
}
