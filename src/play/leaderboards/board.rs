//! Leaderboards and their settings: how scores are ordered and combined, when seasons end, and which prizes winners
//! get.

use std::fmt;
use std::str::FromStr;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::schedule::Schedule;
use super::{Leaderboards, no_board, sql};
use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::ids::{LeaderboardId, SeasonId};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;

/// Maximum number of leaderboards in a database.
const BOARDS_MAX: i64 = 10_000;

/// Maximum number of prizes that a leaderboard can have in each season.
pub const PRIZES_MAX: usize = 1_000;

/// Longest name of a leaderboard, in characters.
const NAME_MAX: usize = 64;

/// Name of a leaderboard: letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BoardName(String);

impl BoardName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BoardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BoardName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = text.bytes();
        let is_valid = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && text.len() <= NAME_MAX;
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("must be a name of 1 to {NAME_MAX} letters, digits, `.`, `_` and `-`"))
        }
    }
}

/// Order of a leaderboard: whether a higher or a lower score is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
pub enum ScoreOrder {
    #[schema(rename = "desc")]
    Descending,
    #[schema(rename = "asc")]
    Ascending,
}

impl ScoreOrder {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descending => "desc",
            Self::Ascending => "asc",
        }
    }

    pub(super) const fn is_ascending(self) -> bool {
        matches!(self, Self::Ascending)
    }

    pub(super) const fn from_ascending(is_ascending: bool) -> Self {
        if is_ascending { Self::Ascending } else { Self::Descending }
    }
}

/// Effect of a submitted score on the player's current score: `best` keeps the better of the two scores, `set` replaces
/// the current score, `incr` adds to it, and `decr` subtracts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ScoreOperator {
    /// Keeps the better of the current and the submitted score.
    Best,
    Set,
    Incr,
    Decr,
}

impl ScoreOperator {
    pub const ALL: [Self; 4] = [Self::Best, Self::Set, Self::Incr, Self::Decr];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Set => "set",
            Self::Incr => "incr",
            Self::Decr => "decr",
        }
    }
}

impl FromStr for ScoreOperator {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|operator| operator.name() == name);
        found.ok_or_else(|| "must be best, set, incr or decr".to_owned())
    }
}

/// A prize that the player at a given rank wins in each season.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrizeRule {
    pub rank: i32,
    pub currency: Currency,
    pub amount: Minor,
}

/// A prize rule in the form that the database stores, with the amount in minor units.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPrizeRule {
    pub rank: i32,
    pub currency: String,
    pub amount: i64,
}

impl From<&PrizeRule> for StoredPrizeRule {
    fn from(rule: &PrizeRule) -> Self {
        let PrizeRule { rank, currency, amount } = rule;
        Self { rank: *rank, currency: currency.code().to_owned(), amount: amount.0 }
    }
}

/// Schedule that decides when the seasons of a leaderboard end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardSchedule {
    /// Cron expression for the times at which a season ends and the next season begins; `None` if there is only a
    /// single season.
    pub reset: Option<String>,
    pub time_zone: Tz,
    /// Time at which the last season ends; `None` if the leaderboard has no end.
    pub ends_at: Option<OffsetDateTime>,
}

impl BoardSchedule {
    /// Returns the end of a season that begins at `from`; `None` if the season has no end.
    pub(super) fn season_end(&self, from: OffsetDateTime) -> Result<Option<OffsetDateTime>> {
        let reset = match &self.reset {
            Some(cron) => Schedule::parse(cron, self.time_zone)
                .map_err(|cause| Error::Internal(anyhow::anyhow!("{cron}: {cause}")))?
                .next_after(from),
            None => None,
        };
        Ok([reset, self.ends_at].into_iter().flatten().min())
    }
}

/// Settings of a leaderboard that a client chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardSettings {
    pub order: ScoreOrder,
    pub operator: ScoreOperator,
    pub schedule: BoardSchedule,
    /// Prizes of each season, sorted by rank.
    pub prizes: Vec<PrizeRule>,
}

/// A leaderboard.
#[derive(Debug, Clone)]
pub struct Board {
    pub id: LeaderboardId,
    pub name: String,
    pub settings: BoardSettings,
    pub created_at: OffsetDateTime,
}

/// A season of a leaderboard.
#[derive(Debug, Clone)]
pub struct Season {
    pub id: SeasonId,
    pub number: i32,
    pub starts_at: OffsetDateTime,
    pub ends_at: Option<OffsetDateTime>,
    pub ended_at: Option<OffsetDateTime>,
    pub prizes: Vec<PrizeRule>,
}

/// Result of [`Leaderboards::put`]: the leaderboard, and whether it was created.
#[derive(Debug)]
pub struct BoardPut {
    pub board: Board,
    pub created: bool,
}

impl Leaderboards {
    /// Creates or changes a leaderboard.
    ///
    /// Changed prizes apply from the next season on. The order and the operator ([`ScoreOperator`]) are fixed once a
    /// season has entries.
    pub async fn put(
        &self,
        name: &BoardName,
        settings: &BoardSettings,
        caller: &Caller,
    ) -> Result<BoardPut> {
        caller.require_scope(Scope::EventsWrite)?;
        if !settings.prizes.is_empty() {
            caller.require_scope(Scope::WalletWrite)?;
        }
        // If the current season is past its end, it is ended first, so that the change does not affect it.
        if let Ok(id) = self.id_of(name).await {
            self.end_due_season(id).await?;
        }
        let mut db = self.db.acquire("leaderboard.put").await?;
        let mut tx = db.begin().await?;
        sql::lock_names(&mut tx).await?;
        let found = sql::find_board(&mut tx, name.as_str()).await?;
        let created = found.is_none();
        let board = match found {
            Some(row) => self.change(&mut tx, row, settings, caller).await?,
            None => self.create(&mut tx, name, settings).await?,
        };
        tx.commit().await?;
        self.count("put");
        Ok(BoardPut { board, created })
    }

    /// Creates a leaderboard with its first season.
    async fn create(
        &self,
        db: &mut PgConnection,
        name: &BoardName,
        settings: &BoardSettings,
    ) -> Result<Board> {
        if sql::count_boards(db).await? >= BOARDS_MAX {
            let why = format!("limit of {BOARDS_MAX} leaderboards reached: delete one first");
            return Err(Error::field("", why));
        }
        let row = sql::create_board(db, name.as_str(), settings).await?;
        let now = sql::now(db).await?;
        let ends_at = settings.schedule.season_end(now)?;
        require_future(now, ends_at)?;
        sql::open_season(db, row.id, now, ends_at).await?;
        self.board_from(row)
    }

    async fn change(
        &self,
        db: &mut PgConnection,
        row: sql::BoardRow,
        settings: &BoardSettings,
        caller: &Caller,
    ) -> Result<Board> {
        sql::lock_board(db, row.id).await?.ok_or_else(no_board)?;
        let board = self.board_from(row)?;
        if !board.settings.prizes.is_empty() {
            caller.require_scope(Scope::WalletWrite)?;
        }
        change(db, &board, settings).await?;
        Ok(Board { settings: settings.clone(), ..board })
    }

    /// Returns at most `limit` leaderboards, sorted by name, beginning after the name `after`.
    pub async fn list(&self, after: &str, limit: i64) -> Result<Vec<Board>> {
        let mut db = self.db.snapshot("leaderboard.list").await?;
        let rows = sql::list_boards(&mut db, after, limit).await?;
        rows.into_iter().map(|row| self.board_from(row)).collect()
    }

    /// Deletes a leaderboard. The running season pays no prizes, but prizes of seasons that have ended are still paid.
    pub async fn delete(&self, name: &BoardName, caller: &Caller) -> Result<()> {
        caller.require_scope(Scope::EventsWrite)?;
        let id = self.id_of(name).await?;
        self.end_due_season(id).await?;
        let mut db = self.db.acquire("leaderboard.delete").await?;
        let mut tx = db.begin().await?;
        let row = sql::lock_board(&mut tx, id).await?;
        let Some(row) = row else {
            self.forget_id(name);
            return Err(no_board());
        };
        let board = self.board_from(row)?;
        let season = sql::current_season(&mut tx, id).await?;
        let has_prizes = match season {
            Some(season) => !self.rules_from(&season.prizes)?.is_empty(),
            None => false,
        };
        if has_prizes || !board.settings.prizes.is_empty() {
            caller.require_scope(Scope::WalletWrite)?;
        }
        sql::delete_board(&mut tx, id).await?;
        super::jobs::enqueue_purge(&mut tx, id).await?;
        tx.commit().await?;
        self.forget_id(name);
        self.count("delete");
        Ok(())
    }

    pub(super) fn board_from(&self, row: sql::BoardRow) -> Result<Board> {
        let internal = |cause: String| Error::Internal(anyhow::Error::msg(cause));
        let settings = BoardSettings {
            order: ScoreOrder::from_ascending(row.ascending),
            operator: row.operator.parse().map_err(internal)?,
            schedule: BoardSchedule {
                reset: row.reset,
                time_zone: super::schedule::time_zone(&row.time_zone).map_err(internal)?,
                ends_at: row.ends_at,
            },
            prizes: self.rules_from(&row.prizes)?,
        };
        Ok(Board { id: row.id, name: row.name, settings, created_at: row.created_at })
    }

    pub(super) fn season_from(&self, row: sql::SeasonRow) -> Result<Season> {
        let sql::SeasonRow { id, number, starts_at, ends_at, ended_at, prizes } = row;
        let prizes = self.rules_from(&prizes)?;
        Ok(Season { id, number, starts_at, ends_at, ended_at, prizes })
    }

    /// Parses prize rules as they are stored in the database.
    fn rules_from(&self, stored: &str) -> Result<Vec<PrizeRule>> {
        let rules: Vec<StoredPrizeRule> =
            serde_json::from_str(stored).map_err(|cause| Error::Internal(cause.into()))?;
        rules
            .into_iter()
            .map(|StoredPrizeRule { rank, currency, amount }| {
                let currency = self.currency(&currency)?;
                Ok(PrizeRule { rank, currency, amount: Minor(amount) })
            })
            .collect()
    }

    pub(super) fn currency(&self, code: &str) -> Result<Currency> {
        self.wallets.currencies().find(code).ok_or_else(|| {
            Error::Internal(anyhow::anyhow!(
                "the currency {code} is no longer listed in --currency"
            ))
        })
    }

    fn count(&self, operation: &'static str) {
        self.metrics.wallet_leaderboard_changes_total.with([operation]).increment(1);
    }
}

/// Changes the settings of a leaderboard. The caller must have locked the leaderboard.
async fn change(db: &mut PgConnection, board: &Board, settings: &BoardSettings) -> Result<()> {
    let before = &board.settings;
    if before == settings {
        return Ok(());
    }
    let is_reordered = (before.order, before.operator) != (settings.order, settings.operator);
    if is_reordered && sql::has_entries(db, board.id).await? {
        return Err(Error::LeaderboardFixed("its order and operator are fixed: it has entries"));
    }
    let open = sql::current_season(db, board.id).await?;
    if before.prizes != settings.prizes && settings.schedule.reset.is_none() && open.is_some() {
        return Err(Error::LeaderboardFixed("its prizes are fixed: its only season has started"));
    }
    sql::change_board(db, board.id, settings).await?;
    if before.schedule == settings.schedule {
        return Ok(());
    }
    let now = sql::now(db).await?;
    let ends_at = settings.schedule.season_end(now)?;
    require_future(now, ends_at)?;
    match open {
        Some(season) => sql::move_season_end(db, season.id, ends_at).await,
        // The last season has ended, so the new schedule begins another season.
        None => sql::open_season(db, board.id, now, ends_at).await,
    }
}

fn require_future(now: OffsetDateTime, ends_at: Option<OffsetDateTime>) -> Result<()> {
    if ends_at.is_none_or(|ends_at| ends_at > now) {
        Ok(())
    } else {
        Err(Error::field("/ends_at", "must be in the future"))
    }
}
