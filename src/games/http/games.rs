//! Routes under `/api/games`, which list, search, get, add, change and delete games.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::PutGame;
use crate::auth::{Authenticator, Caller, bearer};
use crate::error::{Error, Result};
use crate::games::Games;
use crate::games::catalog::{GameBody, GameFilter, ListedGame, ListedGameBody, search_query};
use crate::http::MoneyFormat;
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::extract::{Path, Query};
use crate::http::pagination::{link_next, page_limit};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{GameId, PublisherId};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(list_games, add_game)).routes(routes!(
        get_game,
        update_game,
        delete_game
    ))
}

#[derive(Deserialize, IntoParams)]
struct ListGamesQuery {
    /// Only games of this genre; case-insensitive.
    #[param(example = "puzzle")]
    genre: Option<String>,
    /// Only games with all of these words in title, genre or description. The last word may be incomplete.
    #[param(example = "alpha")]
    q: Option<String>,
    /// Only games of this publisher.
    #[param(value_type = Option<i64>)]
    publisher: Option<PublisherId>,
    /// If true, only games whose price a sale currently lowers.
    #[param(example = true)]
    sale: Option<bool>,
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the header `Link` of the previous page.
    #[param(value_type = Option<i64>)]
    after: Option<GameId>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GameList)]
struct GameListBody<'a> {
    games: Vec<ListedGameBody<'a>>,
}

fn list_body(games: &[ListedGame]) -> Result<Bytes> {
    let games = games.iter().map(ListedGameBody::try_from).collect::<Result<_>>()?;
    let body = serde_json::to_vec(&GameListBody { games });
    body.map(Bytes::from).map_err(|cause| Error::Internal(cause.into()))
}

/// List published games
///
/// Returns published games, sorted by id. A change to a game is visible within a second. A request whose
/// `If-None-Match` contains the `ETag` of the current list gets the status 304.
#[utoipa::path(
    get, path = "/api/games", tag = "games",
    params(
        ListGamesQuery,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the list that the client has"),
    ),
    responses(
        (status = 200, description = "A page of games; the header `Link` has the URL of the next page", body = GameListBody<'static>),
        (status = 304, description = "The list has not changed"),
        Problems,
    ),
)]
async fn list_games(
    State(games): State<Games>,
    Query(query): Query<ListGamesQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let ListGamesQuery { genre, q, publisher, sale, limit, after } = query;
    let limit = page_limit(limit)?;
    if genre.as_deref() == Some("") {
        return Err(Error::field("?genre", "must not be empty"));
    }
    let search = q.as_deref().and_then(search_query);
    if q.is_some() && search.is_none() {
        return Err(Error::field("?q", "must contain a word"));
    }
    for (name, text) in [("?genre", &genre), ("?q", &q)] {
        if text.as_deref().is_some_and(|text| text.contains('\0')) {
            return Err(Error::field(name, "must not contain a NUL"));
        }
    }
    let filter = GameFilter {
        genre: genre.clone(),
        search,
        publisher,
        on_sale: sale.unwrap_or_default(),
        money: MoneyFormat::current(),
        after,
        limit,
    };
    let next = |last: GameId| {
        let mut path = format!("/api/games?limit={limit}&after={last}");
        for (name, value) in [("genre", &genre), ("q", &q)] {
            if let Some(value) = value {
                path.extend(["&", name, "="]);
                path.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        if let Some(PublisherId(publisher)) = publisher {
            path.extend(["&publisher=", &publisher.to_string()]);
        }
        if sale.unwrap_or_default() {
            path.push_str("&sale=true");
        }
        path
    };
    let list = games.list(&filter, list_body, next).await?;
    let etag = HeaderValue::from_str(&list.etag).map_err(|cause| Error::Internal(cause.into()))?;
    let known = headers.get(header::IF_NONE_MATCH);
    let mut response = if known.is_some_and(|known| matches(known, &list.etag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], list.body.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    // A cache may store the list, but must revalidate it before each use.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, no-cache"));
    // The header `Prefer` of the request selects the format of the prices.
    headers.append(header::VARY, HeaderValue::from_static("prefer"));
    link_next(headers, list.next.as_deref());
    Ok(response)
}

/// Returns whether the header `If-None-Match` contains this entity tag. Ignores the prefix `W/` of weak tags, which a
/// proxy may add.
fn matches(known: &HeaderValue, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = known.to_str().unwrap_or_default();
    known.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

/// Get a game
///
/// A draft is visible only to callers that may change it.
#[utoipa::path(
    get, path = "/api/games/{id}", tag = "games",
    params(("id" = i64, Path, description = "The game", example = 1)),
    responses((status = 200, description = "The game", body = GameBody), Problems),
)]
async fn get_game(
    State(games): State<Games>,
    State(authenticator): State<Authenticator>,
    Path(id): Path<GameId>,
    headers: HeaderMap,
) -> Result<Json<GameBody>> {
    let caller = authenticator.identify(bearer(&headers)?.as_ref()).await?;
    let game = games.game(id, &caller).await?;
    GameBody::try_from(&game).map(Json)
}

#[derive(Serialize, ToSchema)]
#[schema(as = GameAdded)]
#[serde(rename_all = "camelCase")]
struct GameAddedBody {
    #[schema(example = "Game added successfully")]
    message: &'static str,
    #[schema(example = "Alpha")]
    title: String,
    #[schema(example = 1)]
    game_id: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GameChanged)]
struct GameChangedBody {
    #[schema(example = "Game updated successfully")]
    message: &'static str,
}

/// Add a game
///
/// Requires the scope `games:write`, unless the caller is the publisher. If the server has open access
/// (`--access=open`), a request without a credential can add a game, but can set only its title, genre, price and
/// description. Such a game has no publisher.
#[utoipa::path(
    post, path = "/api/games", tag = "games",
    params(IdempotencyKey),
    request_body = PutGame<'static>,
    responses((status = 201, description = "Added", body = GameAddedBody), Problems),
)]
async fn add_game(
    State(games): State<Games>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<GameAddedBody>> {
    let body: PutGame<'_> = body.read()?;
    let new = body.into_new(games.currencies(), games.default_currency())?;
    let added = games.add(&new, &caller, &key, context.stored_trace()).await?;
    let location = format!("/api/games/{}", added.id);
    let body = GameAddedBody {
        message: "Game added successfully",
        title: added.title,
        game_id: added.id.0,
    };
    Ok(Replayable::created(body, location, added.replayed))
}

/// Change a game
///
/// Absent fields stay unchanged. Requires the same permission as adding the game. A change to a game of the operator
/// that was sold always requires the scope `games:write`.
#[utoipa::path(
    put, path = "/api/games/{id}", tag = "games",
    params(("id" = i64, Path, description = "The game", example = 1)),
    request_body = PutGame<'static>,
    responses((status = 200, description = "Changed", body = GameChangedBody), Problems),
)]
async fn update_game(
    State(games): State<Games>,
    caller: Caller,
    Path(id): Path<GameId>,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Json<GameChangedBody>> {
    // Visibility is checked before the body, so that a caller that may not see a draft gets no validation errors.
    games.require_visible(id, &caller).await?;
    let body: PutGame<'_> = body.read()?;
    let currency = match body.currency(games.currencies())? {
        Some(currency) => currency,
        None => games.main_currency(id).await?,
    };
    let changes = body.into_changes(games.currencies(), currency)?;
    games.update(id, &changes, &caller, context.stored_trace()).await?;
    Ok(Json(GameChangedBody { message: "Game updated successfully" }))
}

/// Delete a game
///
/// A game that was bought or has downloadable content is retired instead: it is no longer for sale, but its owners keep
/// it. Requires the same permission as changing the game.
#[utoipa::path(
    delete, path = "/api/games/{id}", tag = "games",
    params(
        ("id" = i64, Path, description = "The game", example = 1),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: deletion is idempotent"),
    ),
    responses(
        (status = 200, description = "Deleted or retired", body = GameChangedBody, example = json!({ "message": "Game deleted successfully" })),
        Problems,
    ),
)]
async fn delete_game(
    State(games): State<Games>,
    caller: Caller,
    Path(id): Path<GameId>,
    Extension(context): Extension<RequestContext>,
) -> Result<Json<GameChangedBody>> {
    games.delete(id, &caller, context.stored_trace()).await?;
    Ok(Json(GameChangedBody { message: "Game deleted successfully" }))
}
