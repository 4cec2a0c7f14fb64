//! Routes under `/api/leaderboards`, which manage leaderboards, accept scores, and return pages and ranks.

mod balances;
mod entries;
pub(super) mod prizes;

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Leaderboards;
use super::board::{
    Board, BoardName, BoardPut, BoardSchedule, BoardSettings, PRIZES_MAX, PrizeRule, ScoreOperator,
    ScoreOrder, Season,
};
use super::schedule::{self, Schedule};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::{BoundedList, JsonBody};
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::{moment, stored_moment, string};
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::Problems;
use crate::ledger::currency::Currencies;
use crate::ledger::money::Minor;
use crate::wallet::http::body::number;

/// Largest rank number that can win a prize.
const PRIZE_RANK_MAX: i32 = 10_000;

pub fn routes<S>() -> OpenApiRouter<S>
where
    Leaderboards: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(list_leaderboards))
        .routes(routes!(put_leaderboard, delete_leaderboard))
        .merge(entries::routes())
        .merge(balances::routes())
        .merge(prizes::routes())
}

/// Parses the name of a leaderboard in a path. The error for an invalid name has status 404, because no leaderboard can
/// have this name.
fn board_name(text: &str) -> Result<BoardName> {
    text.parse().map_err(|_| super::no_board())
}

/// A prize that the player at a given rank wins in each season of a leaderboard.
#[derive(Serialize, ToSchema)]
#[schema(as = LeaderboardPrizeRule)]
struct PrizeRuleBody {
    #[schema(example = 1)]
    rank: i32,
    #[schema(value_type = f64, example = 50.00)]
    amount: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
}

impl TryFrom<&PrizeRule> for PrizeRuleBody {
    type Error = Error;

    fn try_from(rule: &PrizeRule) -> Result<Self> {
        let PrizeRule { rank, currency, amount } = rule;
        let amount = number(*amount, *currency)?;
        Ok(Self { rank: *rank, amount, currency: currency.code().to_owned() })
    }
}

fn rule_bodies(rules: &[PrizeRule]) -> Result<Vec<PrizeRuleBody>> {
    rules.iter().map(PrizeRuleBody::try_from).collect()
}

#[derive(Serialize, ToSchema)]
#[schema(as = Leaderboard)]
struct BoardBody {
    #[schema(example = "weekly")]
    name: String,
    /// Order of the scores: `desc` if higher scores are better, `asc` if lower scores are better.
    #[schema(value_type = ScoreOrder)]
    order: &'static str,
    /// Effect of a submitted score on the player's current score.
    #[schema(value_type = ScoreOperator)]
    operator: &'static str,
    /// Cron expression for the times at which a season ends and the next season begins; null if there is only a single
    /// season.
    #[schema(required, example = "0 0 * * MON")]
    reset: Option<String>,
    #[schema(example = "Europe/Berlin")]
    time_zone: &'static str,
    /// Time at which the last season ends; null if the leaderboard has no end.
    #[schema(required, format = DateTime)]
    ends_at: Option<String>,
    /// Prizes of future seasons. A running season keeps the prizes with which it started.
    prizes: Vec<PrizeRuleBody>,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
}

impl TryFrom<&Board> for BoardBody {
    type Error = Error;

    fn try_from(board: &Board) -> Result<Self> {
        let BoardSettings { order, operator, schedule, prizes } = &board.settings;
        Ok(Self {
            name: board.name.clone(),
            order: order.name(),
            operator: operator.name(),
            reset: schedule.reset.clone(),
            time_zone: schedule.time_zone.name(),
            ends_at: schedule.ends_at.map(moment).transpose()?,
            prizes: rule_bodies(prizes)?,
            created_at: moment(board.created_at)?,
        })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = LeaderboardSeason)]
struct SeasonBody {
    #[schema(example = 1)]
    number: i32,
    #[schema(example = "2026-01-26T00:00:00Z", format = DateTime)]
    starts_at: String,
    /// Time at which the season is scheduled to end; null if it has no end.
    #[schema(required, example = "2026-02-02T00:00:00Z", format = DateTime)]
    ends_at: Option<String>,
    /// Time at which the season ended; null while the season is running.
    #[schema(required, format = DateTime)]
    ended_at: Option<String>,
    /// Prizes of the season, which were fixed when the season started.
    prizes: Vec<PrizeRuleBody>,
}

impl TryFrom<&Season> for SeasonBody {
    type Error = Error;

    fn try_from(season: &Season) -> Result<Self> {
        Ok(Self {
            number: season.number,
            starts_at: moment(season.starts_at)?,
            ends_at: season.ends_at.map(moment).transpose()?,
            ended_at: season.ended_at.map(moment).transpose()?,
            prizes: rule_bodies(&season.prizes)?,
        })
    }
}

/// A prize that the player at a given rank wins in each season.
#[derive(Deserialize, ToSchema)]
struct PutPrize<'a> {
    /// Rank that wins the prize, from 1 to 10,000.
    #[serde(borrow, default)]
    #[schema(required, value_type = i32, example = 1)]
    rank: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "50.00")]
    amount: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "EUR")]
    currency: RawField<'a>,
}

#[derive(Deserialize, ToSchema)]
struct PutLeaderboard<'a> {
    /// Order of the scores: `desc` (the default) if higher scores are better, `asc` if lower scores are better.
    #[serde(borrow, default)]
    #[schema(value_type = Option<ScoreOrder>)]
    order: RawField<'a>,
    /// Effect of a submitted score on the player's current score; `best` by default.
    #[serde(borrow, default)]
    #[schema(value_type = Option<ScoreOperator>)]
    operator: RawField<'a>,
    /// Cron expression of five fields, or a nickname such as `@weekly`, for the times at which a season ends and the
    /// next season begins. If absent, there is only a single season.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "0 0 * * MON")]
    reset: RawField<'a>,
    /// Time zone of `reset`; UTC by default.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "Europe/Berlin")]
    time_zone: RawField<'a>,
    /// Time at which the last season ends, as an RFC 3339 timestamp.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2030-01-31T12:00:00Z", format = DateTime)]
    ends_at: RawField<'a>,
    /// Prizes of each season, at most 1,000. A rank can have several prizes, each in a different currency.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<PutPrize<'static>>>)]
    prizes: Option<BoundedList<PutPrize<'a>, PRIZES_MAX>>,
}

impl PutLeaderboard<'_> {
    fn validate(self, currencies: &Currencies) -> Result<BoardSettings> {
        let mut validator = Validator::default();
        let order = validator.optional("/order", &self.order, |raw| match &*string(raw)? {
            "desc" => Ok(ScoreOrder::Descending),
            "asc" => Ok(ScoreOrder::Ascending),
            _ => Err("must be desc or asc".to_owned()),
        });
        let operator = validator.optional("/operator", &self.operator, |raw| string(raw)?.parse());
        let time_zone = validator
            .optional("/time_zone", &self.time_zone, |raw| schedule::time_zone(&string(raw)?));
        let time_zone = time_zone.unwrap_or(chrono_tz::Tz::UTC);
        let reset = validator.optional("/reset", &self.reset, |raw| {
            let text = string(raw)?;
            if text.chars().count() > schedule::CRON_MAX {
                return Err(format!("must have at most {} characters", schedule::CRON_MAX));
            }
            Schedule::parse(&text, time_zone).map(|_| text)
        });
        let ends_at = validator.optional("/ends_at", &self.ends_at, stored_moment);
        let prizes = match self.prizes.map(BoundedList::within) {
            Some(None) => {
                validator.refuse("/prizes", format!("must have at most {PRIZES_MAX} prizes"));
                Vec::new()
            }
            Some(Some(prizes)) => prize_rules(&mut validator, &prizes, currencies),
            None => Vec::new(),
        };
        validator.finish(Some(BoardSettings {
            order: order.unwrap_or(ScoreOrder::Descending),
            operator: operator.unwrap_or(ScoreOperator::Best),
            schedule: BoardSchedule { reset, time_zone, ends_at },
            prizes,
        }))
    }
}

/// Parses the prizes of a request, and sorts them by rank.
fn prize_rules(
    validator: &mut Validator,
    prizes: &[PutPrize<'_>],
    currencies: &Currencies,
) -> Vec<PrizeRule> {
    let mut rules = Vec::new();
    for (n, prize) in prizes.iter().enumerate() {
        let rank = validator.required(&format!("/prizes/{n}/rank"), &prize.rank, |raw| {
            let rank = raw.parse().ok().filter(|rank| (1..=PRIZE_RANK_MAX).contains(rank));
            rank.ok_or_else(|| format!("must be a whole number from 1 to {PRIZE_RANK_MAX}"))
        });
        let currency =
            validator.required(&format!("/prizes/{n}/currency"), &prize.currency, |raw| {
                currencies.supported(&string(raw)?)
            });
        let amount = currency.and_then(|currency| {
            validator.required(&format!("/prizes/{n}/amount"), &prize.amount, |raw| {
                let text = Currencies::amount_text(raw)?;
                Minor::parse_amount(text, currency).map_err(|cause| cause.to_string())
            })
        });
        if let (Some(rank), Some(currency), Some(amount)) = (rank, currency, amount) {
            let is_taken = |rule: &PrizeRule| (rule.rank, rule.currency) == (rank, currency);
            if rules.iter().any(is_taken) {
                validator
                    .refuse(&format!("/prizes/{n}/rank"), "has a prize in this currency already");
            }
            rules.push(PrizeRule { rank, currency, amount });
        }
    }
    rules.sort_unstable();
    rules
}

/// Create or change a leaderboard
///
/// Requires the scope `events:write`, and also `wallet:write` if the leaderboard has prizes or gets prizes. The fields
/// `order` and `operator` cannot change once the leaderboard has entries. Changed prizes apply from the next season on.
/// A leaderboard without `reset` has only a single season, so its prizes cannot change while the season is running.
#[utoipa::path(
    put, path = "/api/leaderboards/{board}", tag = "play",
    params(("board" = String, Path, description = "Name: 1 to 64 letters, digits, `.`, `_` and `-`", example = "weekly")),
    request_body = PutLeaderboard<'static>,
    responses(
        (status = 200, description = "The changed leaderboard", body = BoardBody),
        (status = 201, description = "The created leaderboard", body = BoardBody),
        Problems,
    ),
)]
async fn put_leaderboard(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
    Path(board): Path<String>,
    body: JsonBody,
) -> Result<Response> {
    // The scope is checked before the body, so that a caller without the scope gets no validation errors.
    caller.require_scope(crate::auth::Scope::EventsWrite)?;
    let name: BoardName = board.parse().map_err(|why: String| Error::field("board", why))?;
    let settings = body.read::<PutLeaderboard<'_>>()?.validate(leaderboards.currencies())?;
    let BoardPut { board, created } = leaderboards.put(&name, &settings, &caller).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/api/leaderboards/{}", board.name);
    let body = axum::Json(BoardBody::try_from(&board)?);
    Ok(if created {
        (status, [(http::header::LOCATION, location)], body).into_response()
    } else {
        (status, body).into_response()
    })
}

#[derive(Deserialize, IntoParams)]
struct ListLeaderboardsQuery {
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the header `Link` of the previous page.
    after: Option<String>,
}

/// List leaderboards
#[utoipa::path(
    get, path = "/api/leaderboards", tag = "play",
    params(ListLeaderboardsQuery),
    responses(
        (status = 200, description = "Leaderboards, sorted by name; the header `Link` has the URL of the next page", body = [BoardBody]),
        Problems,
    ),
)]
async fn list_leaderboards(
    State(leaderboards): State<Leaderboards>,
    _caller: Caller,
    Query(query): Query<ListLeaderboardsQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit)?;
    let found = leaderboards.list(query.after.as_deref().unwrap_or_default(), limit).await?;
    let next = last_of_full_page(&found, limit)
        .map(|last| format!("/api/leaderboards?limit={limit}&after={}", last.name));
    let bodies = found.iter().map(BoardBody::try_from).collect::<Result<Vec<_>>>()?;
    Ok(Page::new(bodies, next).into_response())
}

/// Delete a leaderboard
///
/// The running season pays no prizes, but prizes of seasons that have ended are still paid. A new leaderboard can use
/// the name immediately.
#[utoipa::path(
    delete, path = "/api/leaderboards/{board}", tag = "play",
    params(
        ("board" = String, Path, description = "Name of the leaderboard", example = "weekly"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: deletion is idempotent"),
    ),
    responses(
        (status = 204, description = "The leaderboard is deleted, with its seasons and entries"),
        Problems,
    ),
)]
async fn delete_leaderboard(
    State(leaderboards): State<Leaderboards>,
    caller: Caller,
    Path(board): Path<String>,
) -> Result<StatusCode> {
    caller.require_scope(crate::auth::Scope::EventsWrite)?;
    leaderboards.delete(&board_name(&board)?, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
