//! `/api/keys`: keys, for admins.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{NAME_MAX, New, Row};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::{Known, Origin, Scope};
use crate::http::extract::{Check, JsonBody, Member, Path, Query};
use crate::http::problem::ProblemBody;
use crate::trail::By;
use crate::wallet::http::body::{link_next, moment, page_limit, text};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
        .routes(routes!(rotate_key))
}

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct KeyBody {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "shop")]
    name: String,
    #[schema(example = json!(["wallet:read", "wallet:write"]))]
    scopes: Vec<String>,
    /// The key itself. Shown when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "rwk_1_5rO3kZbq7uV0bY1dWc2eXf4gZh6iAj8kBl0mCn2oDp4")]
    key: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    created_at: String,
    /// Not finer than a minute.
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

impl KeyBody {
    fn of(row: Row) -> Result<Self> {
        let Row { id, name, scopes, created_at, last_used_at, revoked_at } = row;
        Ok(Self {
            id: id.to_string(),
            name,
            scopes,
            key: None,
            created_at: moment(created_at)?,
            last_used_at: last_used_at.map(moment).transpose()?,
            revoked_at: revoked_at.map(moment).transpose()?,
        })
    }

    fn new(new: New) -> Result<Self> {
        let key = Some(new.key.reveal().to_owned());
        Ok(Self { key, ..Self::of(new.row)? })
    }
}

#[derive(Deserialize, ToSchema)]
struct CreateKey<'a> {
    /// What it is for: 1 to 100 characters.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "shop")]
    name: Member<'a>,
    /// Of `wallet:read`, `wallet:write`, `users:read`, `games:write`, `events:write` and `admin`.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<String>, example = json!(["wallet:read", "wallet:write"]))]
    scopes: Member<'a>,
}

fn scopes(raw: &str) -> Result<Vec<Scope>, String> {
    let names: Vec<String> =
        serde_json::from_str(raw).map_err(|_| "must be a list of names".to_owned())?;
    let scopes: Option<Vec<Scope>> = names.iter().map(|name| Scope::of_name(name)).collect();
    let scopes = scopes.filter(|scopes| (1..=Scope::ALL.len()).contains(&scopes.len()));
    scopes.ok_or_else(|| format!("must be of: {}", Scope::ALL.map(Scope::name).join(", ")))
}

/// Make an API key
///
/// For admins. The answer shows it once; afterwards only its hash is known. It is not made twice with the same
/// intention by itself: a repetition makes another key, and the first can be revoked.
#[utoipa::path(
    post, path = "/api/keys", tag = "keys", security(("bearer" = [])),
    request_body = CreateKey<'static>,
    responses(
        (status = 201, description = "Made", body = KeyBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_key(
    State(app): State<App>,
    Known(caller): Known,
    origin: Origin,
    body: JsonBody,
) -> Result<Response> {
    caller.needs(Scope::Admin)?;
    let CreateKey { name, scopes: names } = body.read()?;
    let mut check = Check::default();
    let name = check.required("/name", &name, |raw| text(raw, NAME_MAX));
    let scopes = check.required("/scopes", &names, scopes);
    let (name, scopes) = check.finish(name.zip(scopes))?;
    let by = By { actor: caller.name(), origin: Some(origin) };
    let new = app.keys.create(&name, &scopes, by).await?;
    let location = HeaderValue::from_str(&format!("/api/keys/{}", new.row.id));
    let mut response = (StatusCode::CREATED, axum::Json(KeyBody::new(new)?)).into_response();
    response
        .headers_mut()
        .insert(header::LOCATION, location.expect("digits are visible characters"));
    Ok(response)
}

#[derive(Deserialize, IntoParams)]
struct KeysQuery {
    /// Most keys of the answer: 1 to 1000, by default 100.
    limit: Option<i64>,
    /// Where the last page ended; take it from the header `Link`.
    after: Option<i64>,
}

/// List API keys
///
/// For admins. The revoked ones too.
#[utoipa::path(
    get, path = "/api/keys", tag = "keys", params(KeysQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "In the order of their ids; `Link` has the next page", body = [KeyBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_keys(
    State(app): State<App>,
    Known(caller): Known,
    Query(query): Query<KeysQuery>,
) -> Result<Response> {
    caller.needs(Scope::Admin)?;
    let limit = page_limit(query.limit)?;
    let rows = app.keys.list(query.after.unwrap_or(0), limit).await?;
    let next = rows.last().filter(|_| i64::try_from(rows.len()) == Ok(limit)).map(|last| last.id);
    let bodies = rows.into_iter().map(KeyBody::of).collect::<Result<Vec<_>>>()?;
    let mut response = axum::Json(bodies).into_response();
    if let Some(last) = next {
        link_next(&mut response, &format!("/api/keys?limit={limit}&after={last}"));
    }
    Ok(response)
}

/// End an API key
///
/// For admins. It is dead at once on this process, and within a second on the others.
#[utoipa::path(
    delete, path = "/api/keys/{key}", tag = "keys", security(("bearer" = [])),
    params(("key" = String, Path, description = "The number of the key", example = "1")),
    responses(
        (status = 204, description = "Ended"),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn revoke_key(
    State(app): State<App>,
    Known(caller): Known,
    origin: Origin,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    caller.needs(Scope::Admin)?;
    app.keys.revoke(id, By { actor: caller.name(), origin: Some(origin) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give an API key another secret
///
/// For admins. The one before works for a day, so that whoever uses it can change over.
#[utoipa::path(
    post, path = "/api/keys/{key}/rotate", tag = "keys", security(("bearer" = [])),
    params(("key" = String, Path, description = "The number of the key", example = "1")),
    responses(
        (status = 200, description = "The key with its new secret", body = KeyBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn rotate_key(
    State(app): State<App>,
    Known(caller): Known,
    origin: Origin,
    Path(id): Path<i64>,
) -> Result<Response> {
    caller.needs(Scope::Admin)?;
    let new = app.keys.rotate(id, By { actor: caller.name(), origin: Some(origin) }).await?;
    Ok(axum::Json(KeyBody::new(new)?).into_response())
}
