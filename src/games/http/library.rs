//! Routes that list the games of a user, and check whether a user owns a game.

use axum::Json;
use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticated, Authenticator};
use crate::error::{Error, Result};
use crate::games::Games;
use crate::games::library::LibraryEntry;
use crate::http::extract::{Path, Query};
use crate::http::fields::moment;
use crate::http::pagination::{last_of_full_page, link_next, page_limit};
use crate::http::problem::Problems;
use crate::ids::{GameId, UserId};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(get_library)).routes(routes!(get_game_owner))
}

#[derive(Serialize, ToSchema)]
#[schema(as = LibraryEntry)]
#[serde(rename_all = "camelCase")]
struct LibraryEntryBody {
    #[schema(example = 1)]
    game_id: i64,
    #[schema(example = "Alpha")]
    title: String,
    #[schema(example = "puzzle")]
    genre: String,
    #[schema(example = "The first game")]
    description: String,
    /// Id of the base game, if this game is downloadable content.
    #[schema(required, example = 7)]
    base: Option<i64>,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    acquired_at: String,
}

impl TryFrom<LibraryEntry> for LibraryEntryBody {
    type Error = Error;

    fn try_from(entry: LibraryEntry) -> Result<Self> {
        let LibraryEntry { game, title, genre, description, base, acquired_at } = entry;
        let (game_id, base) = (game.0, base.map(|id| id.0));
        Ok(Self { game_id, title, genre, description, base, acquired_at: moment(acquired_at)? })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Library)]
struct LibraryBody {
    games: Vec<LibraryEntryBody>,
}

#[derive(Deserialize, IntoParams)]
struct GetLibraryQuery {
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the header `Link` of the previous page.
    #[param(value_type = Option<i64>)]
    after: Option<GameId>,
}

/// List the games of a user
///
/// Users can list their own games; other callers need the scope `games:read`.
#[utoipa::path(
    get, path = "/api/users/{id}/library", tag = "games", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user", example = "1"), GetLibraryQuery),
    responses((status = 200, description = "A page of games; the header `Link` has the URL of the next page", body = LibraryBody), Problems),
)]
async fn get_library(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    Query(query): Query<GetLibraryQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit)?;
    let entries = games.library(user, query.after, limit, &caller).await?;
    let next = last_of_full_page(&entries, limit)
        .map(|last| format!("/api/users/{user}/library?limit={limit}&after={}", last.game));
    let games = entries.into_iter().map(LibraryEntryBody::try_from).collect::<Result<_>>()?;
    let mut response = Json(LibraryBody { games }).into_response();
    link_next(response.headers_mut(), next.as_deref());
    Ok(response)
}

/// A user who owns a game.
#[derive(Serialize, ToSchema)]
#[schema(as = GameOwner)]
#[serde(rename_all = "camelCase")]
struct GameOwnerBody {
    #[schema(example = 1)]
    game_id: i64,
    #[schema(example = "2")]
    user_id: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    acquired_at: String,
}

/// Check ownership of a game
///
/// Meant for game servers. The response has the status 200 if the user owns the game, and 404 otherwise. Requires
/// the scope `games:read`, unless the caller is the user or the publisher.
#[utoipa::path(
    get, path = "/api/games/{id}/owners/{user_id}", tag = "games", security(("bearer" = [])),
    params(
        ("id" = i64, Path, description = "The game", example = 1),
        ("user_id" = String, Path, description = "The user", example = "2"),
    ),
    responses((status = 200, description = "The user owns the game", body = GameOwnerBody), Problems),
)]
async fn get_game_owner(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path((game, user)): Path<(GameId, UserId)>,
) -> Result<Json<GameOwnerBody>> {
    let since = games.owned_since(game, user, &caller).await?;
    let (game_id, user_id) = (game.0, user.to_string());
    Ok(Json(GameOwnerBody { game_id, user_id, acquired_at: moment(since)? }))
}
