//! Routes for the entries of a leaderboard: submit a score, get a page, and get an entry with its neighbors.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{BoardBody, SeasonBody, board_name};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::JsonBody;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::{metadata, moment, string};
use crate::http::pagination::{link, page_limit};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::PlayerId;
use crate::play::leaderboards::Leaderboards;
use crate::play::leaderboards::page::{
    AROUND_MAX, Cursor, EntryWithNeighbors, PageStart, RankedEntry,
};
use crate::play::leaderboards::prize::{Prize, PrizeState};
use crate::play::leaderboards::submission::{SCORE_MAX, Submission, SubmittedEntry};
use crate::wallet::http::body::number;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Leaderboards: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(get_leaderboard))
        .routes(routes!(submit_score))
        .routes(routes!(get_leaderboard_entry))
}

/// State of a prize.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = PrizeState)]
#[serde(rename_all = "snake_case")]
enum PaymentState {
    Due,
    Paid,
    /// The prize could not be paid; the field `reason` says why.
    Unpaid,
}

/// A prize that a leaderboard entry has won.
#[derive(Serialize, ToSchema)]
#[schema(as = LeaderboardPrize)]
struct PrizeBody {
    #[schema(value_type = f64, example = 50.00)]
    amount: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    state: PaymentState,
    /// Id of the transfer that paid the prize.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "17")]
    transfer: Option<String>,
    /// Reason why the prize could not be paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "wallet_closed")]
    reason: Option<String>,
}

impl TryFrom<Prize> for PrizeBody {
    type Error = Error;

    fn try_from(prize: Prize) -> Result<Self> {
        let (state, transfer, reason) = match prize.state {
            PrizeState::Due => (PaymentState::Due, None, None),
            PrizeState::Paid(transfer) => (PaymentState::Paid, Some(transfer.to_string()), None),
            PrizeState::Unpaid(reason) => (PaymentState::Unpaid, None, Some(reason)),
        };
        Ok(Self {
            amount: number(prize.amount, prize.currency)?,
            currency: prize.currency.code().to_owned(),
            state,
            transfer,
            reason,
        })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = LeaderboardEntry)]
struct EntryBody {
    /// Rank of the entry, from 1; no two entries share a rank.
    #[schema(example = 1)]
    rank: i64,
    /// Id of the player.
    #[schema(example = "2")]
    owner: String,
    #[schema(example = 1200)]
    score: i64,
    #[schema(example = 0)]
    subscore: i64,
    #[schema(required, value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// Number of scores that were submitted for the player, including scores that did not change the entry.
    #[schema(example = 1)]
    submissions: i64,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    updated_at: String,
    /// Prizes that the entry won when the season ended; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prizes: Vec<PrizeBody>,
}

impl TryFrom<RankedEntry> for EntryBody {
    type Error = Error;

    fn try_from(entry: RankedEntry) -> Result<Self> {
        Ok(Self {
            rank: entry.rank,
            owner: entry.owner,
            score: entry.score,
            subscore: entry.subscore,
            metadata: entry.metadata,
            submissions: entry.submissions,
            created_at: moment(entry.created_at)?,
            updated_at: moment(entry.updated_at)?,
            prizes: entry.prizes.into_iter().map(PrizeBody::try_from).collect::<Result<_>>()?,
        })
    }
}

impl TryFrom<SubmittedEntry> for EntryBody {
    type Error = Error;

    fn try_from(entry: SubmittedEntry) -> Result<Self> {
        Ok(Self {
            rank: entry.rank,
            owner: entry.owner,
            score: entry.score,
            subscore: entry.subscore,
            metadata: entry.metadata,
            submissions: entry.submissions,
            created_at: moment(entry.created_at)?,
            updated_at: moment(entry.updated_at)?,
            prizes: Vec::new(),
        })
    }
}

/// Parses the id of a player: a string of visible characters, or a whole number.
fn player_id(raw: &str) -> Result<PlayerId, String> {
    let is_number = !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit());
    let text = if is_number { raw.to_owned() } else { string(raw)? };
    PlayerId::try_from(text).map_err(|cause| cause.to_string())
}

fn score(raw: &str) -> Result<i64, String> {
    let score = raw.parse().ok().filter(|score| (-SCORE_MAX..=SCORE_MAX).contains(score));
    score.ok_or_else(|| format!("must be a whole number from -{SCORE_MAX} to {SCORE_MAX}"))
}

#[derive(Deserialize, ToSchema)]
struct SubmitScore<'a> {
    /// Id of the player: the id of a user, or any name for a guest.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "2")]
    user: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = i64, example = 1200)]
    score: RawField<'a>,
    /// Second score, which breaks ties between equal scores; 0 by default.
    #[serde(borrow, default)]
    #[schema(value_type = Option<i64>, example = 0)]
    subscore: RawField<'a>,
    /// A JSON object that is stored with the entry.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    metadata: RawField<'a>,
}

/// Submit a score
///
/// Requires the scope `events:write`. Returns the updated entry of the player.
#[utoipa::path(
    post, path = "/api/leaderboards/{board}/scores", tag = "play",
    params(
        ("board" = String, Path, description = "Name of the leaderboard", example = "weekly"),
        IdempotencyKey,
    ),
    request_body = SubmitScore<'static>,
    responses(
        (status = 200, description = "The entry with its rank", body = EntryBody),
        Problems,
    ),
)]
async fn submit_score(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
    Path(board): Path<String>,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Response> {
    caller.require_scope(crate::auth::Scope::EventsWrite)?;
    let name = board_name(&board)?;
    let SubmitScore { user, score: points, subscore, metadata: extra } = body.read()?;
    let mut validator = Validator::default();
    let owner = validator.required("/user", &user, player_id);
    let points = validator.required("/score", &points, score);
    let subscore = validator.optional("/subscore", &subscore, score).unwrap_or_default();
    let metadata = validator.optional("/metadata", &extra, metadata);
    let (owner, score) = validator.finish(owner.zip(points))?;
    let submission = Submission { owner, score, subscore, metadata };
    let entry = leaderboards.submit(&name, submission, &caller, &key).await?;
    let replayed = entry.replayed;
    Ok(Replayable::ok(EntryBody::try_from(entry)?, replayed).into_response())
}

#[derive(Deserialize, IntoParams)]
struct GetLeaderboardQuery {
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the header `Link` of the previous page.
    after: Option<String>,
    /// Cursor before which the page ends. Take it from the header `Link` of the following page.
    before: Option<String>,
    /// Number of the season; by default the current season or, if no season is running, the last season.
    season: Option<i32>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LeaderboardPage)]
struct BoardPageBody {
    #[serde(flatten)]
    board: BoardBody,
    season: SeasonBody,
    entries: Vec<EntryBody>,
}

/// Parses the query parameters `after` and `before`, which cannot be combined.
pub(super) fn page_start(after: Option<&str>, before: Option<&str>) -> Result<PageStart> {
    let cursor = |name: &str, text: &str| {
        Cursor::decode(text)
            .ok_or_else(|| Error::field(name, "is not a cursor: take it from the header Link"))
    };
    match (after, before) {
        (None, None) => Ok(PageStart::First),
        (Some(after), None) => Ok(PageStart::After(cursor("?after", after)?)),
        (None, Some(before)) => Ok(PageStart::Before(cursor("?before", before)?)),
        (Some(_), Some(_)) => Err(Error::field("?before", "cannot be combined with after")),
    }
}

/// Get a leaderboard
///
/// Returns the leaderboard, a season (by default the latest), and a page of the season's entries with their current
/// ranks. The header `Link` contains links to the next and the previous page.
#[utoipa::path(
    get, path = "/api/leaderboards/{board}", tag = "play",
    params(
        ("board" = String, Path, description = "Name of the leaderboard", example = "weekly"),
        GetLeaderboardQuery,
    ),
    responses(
        (status = 200, description = "The leaderboard with a page of its entries", body = BoardPageBody),
        Problems,
    ),
)]
async fn get_leaderboard(
    State(leaderboards): State<Leaderboards>,
    _caller: Caller,
    Path(board): Path<String>,
    Query(query): Query<GetLeaderboardQuery>,
) -> Result<Response> {
    let name = board_name(&board)?;
    let limit = page_limit(query.limit)?;
    let start = page_start(query.after.as_deref(), query.before.as_deref())?;
    let page = leaderboards.page(&name, query.season, &start, limit).await?;
    let link_at = |rel: &str, name: &str, cursor: &Cursor| {
        let path = format!("/api/leaderboards/{}", page.board.name);
        let season = page.season.number;
        let cursor = cursor.encode();
        link(&format!("{path}?limit={limit}&season={season}&{name}={cursor}"), rel)
    };
    let links: Vec<String> = [
        page.next.as_ref().map(|cursor| link_at("next", "after", cursor)),
        page.previous.as_ref().map(|cursor| link_at("prev", "before", cursor)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let body = BoardPageBody {
        board: BoardBody::try_from(&page.board)?,
        season: SeasonBody::try_from(&page.season)?,
        entries: page.entries.into_iter().map(EntryBody::try_from).collect::<Result<_>>()?,
    };
    let mut response = axum::Json(body).into_response();
    if let (false, Ok(links)) = (links.is_empty(), HeaderValue::from_str(&links.join(", "))) {
        response.headers_mut().insert(header::LINK, links);
    }
    Ok(response)
}

#[derive(Deserialize, IntoParams)]
struct GetEntryQuery {
    /// Number of neighbors on each side, 0 to 100; 5 by default.
    around: Option<i64>,
    /// Number of the season; by default the current season or, if no season is running, the last season.
    season: Option<i32>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LeaderboardEntryWithNeighbors)]
struct EntryWithNeighborsBody {
    season: SeasonBody,
    /// Index of the player's entry in `entries`, from 0.
    #[schema(example = 5)]
    index: usize,
    /// The entry and its neighbors, best rank first.
    entries: Vec<EntryBody>,
}

/// Default number of neighbors on each side of an entry.
pub(super) const AROUND_DEFAULT: i64 = 5;

/// Get an entry and its neighbors
///
/// Returns the entry of a player, and the entries ranked directly above and below.
#[utoipa::path(
    get, path = "/api/leaderboards/{board}/users/{id}", tag = "play",
    params(
        ("board" = String, Path, description = "Name of the leaderboard", example = "weekly"),
        ("id" = String, Path, description = "Id of the player", example = "2"),
        GetEntryQuery,
    ),
    responses(
        (status = 200, description = "The entry and its neighbors", body = EntryWithNeighborsBody),
        Problems,
    ),
)]
async fn get_leaderboard_entry(
    State(leaderboards): State<Leaderboards>,
    _caller: Caller,
    Path((board, owner)): Path<(String, String)>,
    Query(query): Query<GetEntryQuery>,
) -> Result<Response> {
    let name = board_name(&board)?;
    let owner: PlayerId = owner.parse().map_err(|_| Error::NotFound("entry"))?;
    let around = query.around.unwrap_or(AROUND_DEFAULT);
    if !(0..=AROUND_MAX).contains(&around) {
        return Err(Error::field("?around", format!("must be from 0 to {AROUND_MAX}")));
    }
    let found = leaderboards.around(&name, owner.as_str(), query.season, around).await?;
    let EntryWithNeighbors { season, entries, index } = found;
    let entries = entries.into_iter().map(EntryBody::try_from).collect::<Result<_>>()?;
    let body = EntryWithNeighborsBody { season: SeasonBody::try_from(&season)?, index, entries };
    Ok(axum::Json(body).into_response())
}
