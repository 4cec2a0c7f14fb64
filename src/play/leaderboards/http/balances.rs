//! Routes under `/api/leaderboard`, which rank players by the highest balance that their main wallet ever reached.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entries::{AROUND_DEFAULT, page_start};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::extract::{Path, Query};
use crate::http::fields::moment;
use crate::http::pagination::{link, page_limit};
use crate::http::problem::Problems;
use crate::ids::PlayerId;
use crate::play::leaderboards::Leaderboards;
use crate::play::leaderboards::balances::{BalanceEntry, BalanceNeighbors};
use crate::play::leaderboards::page::AROUND_MAX;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Leaderboards: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(get_balance_leaderboard)).routes(routes!(get_balance_rank))
}

#[derive(Serialize, ToSchema)]
#[schema(as = BalanceLeaderboardEntry)]
#[serde(rename_all = "camelCase")]
struct BalanceEntryBody {
    #[schema(example = 1)]
    rank: i64,
    #[schema(example = "2")]
    user_id: String,
    /// Highest balance that the player reached, in minor units; absent if the caller may not see the player's balance.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 12300)]
    balance: Option<i64>,
    /// Time at which the player reached the highest balance.
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    reached_at: String,
}

impl TryFrom<BalanceEntry> for BalanceEntryBody {
    type Error = Error;

    fn try_from(BalanceEntry { entry, is_visible }: BalanceEntry) -> Result<Self> {
        Ok(Self {
            rank: entry.rank,
            user_id: entry.owner,
            balance: is_visible.then_some(entry.score),
            reached_at: moment(entry.updated_at)?,
        })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = BalanceLeaderboard)]
struct BalancePageBody {
    #[schema(example = "EUR")]
    currency: String,
    /// Number of decimal places of the currency. With 2 decimal places, the balance 12300 means 123.00.
    #[schema(example = 2)]
    decimals: u8,
    entries: Vec<BalanceEntryBody>,
}

#[derive(Deserialize, IntoParams)]
struct BalancePageQuery {
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the header `Link` of the previous page.
    after: Option<String>,
    /// Cursor before which the page ends. Take it from the header `Link` of the following page.
    before: Option<String>,
}

/// Get the leaderboard of balances
///
/// Ranks players by the highest balance that their main wallet in the default currency ever reached. If players have
/// equal balances, the player that reached the balance first ranks higher. The header `Link` contains links to the next
/// and the previous page.
#[utoipa::path(
    get, path = "/api/leaderboard", tag = "play",
    params(BalancePageQuery),
    responses(
        (status = 200, description = "A page of the leaderboard", body = BalancePageBody),
        Problems,
    ),
)]
async fn get_balance_leaderboard(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
    Query(query): Query<BalancePageQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit)?;
    let start = page_start(query.after.as_deref(), query.before.as_deref())?;
    let page = leaderboards.balance_page(&start, limit, &caller).await?;
    let next = page.next.map(|at| ("next", "after", at));
    let previous = page.previous.map(|at| ("prev", "before", at));
    let links = [next, previous].into_iter().flatten().map(|(rel, name, at)| {
        link(&format!("/api/leaderboard?limit={limit}&{name}={}", at.encode()), rel)
    });
    let links = links.collect::<Vec<_>>().join(", ");
    let body = BalancePageBody {
        currency: page.currency.code().to_owned(),
        decimals: page.currency.decimals(),
        entries: page.entries.into_iter().map(BalanceEntryBody::try_from).collect::<Result<_>>()?,
    };
    let mut response = axum::Json(body).into_response();
    if let (false, Ok(links)) = (links.is_empty(), HeaderValue::from_str(&links)) {
        response.headers_mut().insert(header::LINK, links);
    }
    Ok(response)
}

#[derive(Deserialize, IntoParams)]
struct BalanceRankQuery {
    /// Number of neighbors on each side, 0 to 100; 5 by default.
    around: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BalanceLeaderboardRank)]
struct BalanceRankBody {
    #[schema(example = "EUR")]
    currency: String,
    /// Index of the player's entry in `entries`, from 0.
    #[schema(example = 5)]
    index: usize,
    /// The player's entry and its neighbors, best rank first.
    entries: Vec<BalanceEntryBody>,
}

/// Get a player's rank by balance
#[utoipa::path(
    get, path = "/api/leaderboard/{user_id}", tag = "play",
    params(("user_id" = String, Path, description = "Id of the player", example = "2"), BalanceRankQuery),
    responses(
        (status = 200, description = "The player's entry and its neighbors", body = BalanceRankBody),
        Problems,
    ),
)]
async fn get_balance_rank(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
    Path(player): Path<String>,
    Query(query): Query<BalanceRankQuery>,
) -> Result<Response> {
    let player: PlayerId = player.parse().map_err(|_| Error::NotFound("entry"))?;
    let around = query.around.unwrap_or(AROUND_DEFAULT);
    if !(0..=AROUND_MAX).contains(&around) {
        return Err(Error::field("?around", format!("must be from 0 to {AROUND_MAX}")));
    }
    let found = leaderboards.balance_neighbors(&player, around, &caller).await?;
    let BalanceNeighbors { currency, entries, index } = found;
    let entries = entries.into_iter().map(BalanceEntryBody::try_from).collect::<Result<_>>()?;
    let body = BalanceRankBody { currency: currency.code().to_owned(), index, entries };
    Ok(axum::Json(body).into_response())
}
