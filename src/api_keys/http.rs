//! `/api/keys`: the routes through which admins manage API keys.

use axum::Json;
use axum::extract::{FromRef, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiKeyRow, ApiKeys, NAME_MAX, NewApiKey};
use crate::auth::{Authenticated, Authenticator, Scope, TrustedProxies};
use crate::error::{Error, Result};
use crate::http::body::{BoundedList, EmptyBody, JsonBody};
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::{self, moment, text};
use crate::http::origin::Origin;
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::ids::ApiKeyId;

pub fn routes<S>() -> OpenApiRouter<S>
where
    ApiKeys: FromRef<S>,
    Authenticator: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
        .routes(routes!(rotate_key))
}

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(super) struct ApiKeyBody {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "shop")]
    name: String,
    #[schema(value_type = Vec<Scope>)]
    scopes: Vec<String>,
    /// Id of the publisher whose games the key is limited to; null if the key has no such limit.
    #[schema(required)]
    publisher: Option<String>,
    /// The key itself. Present only in the response to the request that creates or rotates the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "rwk_1_5rO3kZbq7uV0bY1dWc2eXf4gZh6iAj8kBl0mCn2oDp4")]
    key: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
    /// Time of the last use, accurate to the minute; null if the key has never been used.
    #[schema(required, format = DateTime)]
    last_used_at: Option<String>,
    #[schema(required, format = DateTime)]
    revoked_at: Option<String>,
}

impl TryFrom<ApiKeyRow> for ApiKeyBody {
    type Error = Error;

    fn try_from(row: ApiKeyRow) -> Result<Self> {
        let ApiKeyRow { id, name, scopes, publisher, created_at, last_used_at, revoked_at } = row;
        Ok(Self {
            id: id.to_string(),
            name,
            scopes,
            publisher: publisher.map(|id| id.to_string()),
            key: None,
            created_at: moment(created_at)?,
            last_used_at: last_used_at.map(moment).transpose()?,
            revoked_at: revoked_at.map(moment).transpose()?,
        })
    }
}

impl TryFrom<NewApiKey> for ApiKeyBody {
    type Error = Error;

    fn try_from(new: NewApiKey) -> Result<Self> {
        let key = Some(new.key.reveal().to_owned());
        Ok(Self { key, ..Self::try_from(new.row)? })
    }
}

#[derive(Deserialize, ToSchema)]
struct CreateKey<'a> {
    /// Name of the program that uses the key, 1 to 100 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "shop")]
    name: RawField<'a>,
    /// Permissions of the key: any of `wallet:read`, `wallet:write`, `users:read`, `games:read`, `games:write`,
    /// `events:write` and `admin`.
    #[serde(borrow, default)]
    #[schema(required, value_type = Vec<Scope>)]
    scopes: RawField<'a>,
    /// Id of a publisher, to limit the key to its games; the key may then have only the scopes `games:read` and
    /// `games:write`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "1")]
    publisher: RawField<'a>,
}

fn scopes(raw: &str) -> Result<Vec<Scope>, String> {
    let names: BoundedList<String, { Scope::ALL.len() }> =
        serde_json::from_str(raw).map_err(|_| "must be a list of names".to_owned())?;
    let names = names.within().unwrap_or_default();
    let scopes: Option<Vec<Scope>> = names.iter().map(|name| name.parse().ok()).collect();
    scopes
        .filter(|scopes| !scopes.is_empty())
        .ok_or_else(|| format!("must be among: {}", Scope::ALL.map(Scope::name).join(", ")))
}

/// Create an API key
///
/// For admins. Only this response contains the key, because the server stores only its hash. The request is not
/// idempotent: repeating it creates another key. If you did not receive the response, find the new key in the list of
/// API keys, and revoke it.
#[utoipa::path(
    post, path = "/api/keys", tag = "keys", security(("bearer" = [])),
    request_body = CreateKey<'static>,
    responses(
        (status = 201, description = "The key", body = ApiKeyBody),
        Problems,
    ),
)]
async fn create_key(
    State(keys): State<ApiKeys>,
    Authenticated(caller): Authenticated,
    origin: Origin,
    body: JsonBody,
) -> Result<Replayable<ApiKeyBody>> {
    caller.require_scope(Scope::Admin)?;
    let CreateKey { name, scopes: names, publisher } = body.read()?;
    let mut validator = Validator::default();
    let name = validator.required("/name", &name, |raw| text(raw, NAME_MAX));
    let scopes = validator.required("/scopes", &names, scopes);
    let publisher = validator.optional("/publisher", &publisher, fields::publisher);
    let (name, scopes) = validator.finish(name.zip(scopes))?;
    let new = keys.create(&caller, Some(origin), &name, &scopes, publisher).await?;
    let location = format!("/api/keys/{}", new.row.id);
    Ok(Replayable::created(ApiKeyBody::try_from(new)?, location, false))
}

#[derive(Deserialize, IntoParams)]
struct ListKeysQuery {
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the `Link` header of the previous page.
    after: Option<i64>,
}

/// List API keys
///
/// For admins. Includes revoked keys.
#[utoipa::path(
    get, path = "/api/keys", tag = "keys", params(ListKeysQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "Keys, sorted by id; the `Link` header has the URL of the next page", body = [ApiKeyBody]),
        Problems,
    ),
)]
async fn list_keys(
    State(keys): State<ApiKeys>,
    Authenticated(caller): Authenticated,
    Query(query): Query<ListKeysQuery>,
) -> Result<Page<ApiKeyBody>> {
    let limit = page_limit(query.limit)?;
    let rows = keys.list(&caller, query.after.unwrap_or(0), limit).await?;
    let next = last_of_full_page(&rows, limit)
        .map(|last| format!("/api/keys?limit={limit}&after={}", last.id));
    Ok(Page::new(rows.into_iter().map(ApiKeyBody::try_from).collect::<Result<_>>()?, next))
}

/// Revoke an API key
///
/// For admins. The server process that handles this request rejects the key at once; the other processes reject it
/// within a second.
#[utoipa::path(
    delete, path = "/api/keys/{key}", tag = "keys", security(("bearer" = [])),
    params(("key" = String, Path, description = "Id of the key", example = "1")),
    responses(
        (status = 204, description = "Revoked"),
        Problems,
    ),
)]
async fn revoke_key(
    State(keys): State<ApiKeys>,
    Authenticated(caller): Authenticated,
    origin: Origin,
    Path(id): Path<ApiKeyId>,
) -> Result<StatusCode> {
    keys.revoke(&caller, Some(origin), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate an API key
///
/// For admins. The current secret stays valid for a day, so that clients can switch to the new secret. A second
/// rotation within that day makes the secret from the first rotation invalid; the original secret stays valid until the
/// day has passed.
#[utoipa::path(
    post, path = "/api/keys/{key}/rotate", tag = "keys", security(("bearer" = [])),
    params(("key" = String, Path, description = "Id of the key", example = "1")),
    responses(
        (status = 200, description = "The key with its new secret", body = ApiKeyBody),
        Problems,
    ),
)]
async fn rotate_key(
    State(keys): State<ApiKeys>,
    Authenticated(caller): Authenticated,
    origin: Origin,
    Path(id): Path<ApiKeyId>,
    EmptyBody: EmptyBody,
) -> Result<Json<ApiKeyBody>> {
    Ok(Json(keys.rotate(&caller, Some(origin), id).await?.try_into()?))
}
