//! Queries for the pages and ranks of a leaderboard. Each query is a single SQL statement, so the ranks in its result
//! are consistent with each other.

mod sql;

use std::collections::HashMap;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::board::{Board, BoardName, Season};
use super::prize::Prize;
use super::{Leaderboards, no_board, prize, sql as boards};
use crate::error::{Error, Result};
use crate::ids::SeasonId;
use crate::telemetry::Metrics;

/// Maximum number of neighbors on each side of an entry.
pub const AROUND_MAX: i64 = 100;

/// Length of a place, in bytes. A place is the sort key of an entry. It consists of the score, the subscore, and a
/// number that breaks ties: of two players with equal scores, the player that reached the score first ranks higher.
const PLACE_BYTES: usize = 24;

/// An entry of a leaderboard, with its rank.
#[derive(Debug)]
pub struct RankedEntry {
    pub rank: i64,
    pub owner: String,
    pub score: i64,
    pub subscore: i64,
    pub metadata: Option<Box<RawValue>>,
    pub submissions: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    /// Prizes that the entry won when the season ended; empty if there are none.
    pub prizes: Vec<Prize>,
    place: Vec<u8>,
}

/// A position in the ranking of a season, at which a page ends and the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    season: SeasonId,
    place: Vec<u8>,
}

impl Cursor {
    pub fn encode(&self) -> String {
        let bytes = [&self.season.0.to_be_bytes() as &[u8], &self.place].concat();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses a cursor; `None` if the text is not a cursor.
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (season, place) = bytes.split_first_chunk::<8>()?;
        let season = SeasonId(i64::from_be_bytes(*season));
        (place.len() == PLACE_BYTES).then(|| Self { season, place: place.to_vec() })
    }
}

/// Start of a page of a leaderboard: the first entry, or the entries after or before a cursor.
#[derive(Debug)]
pub enum PageStart {
    First,
    After(Cursor),
    Before(Cursor),
}

impl PageStart {
    fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::First => None,
            Self::After(cursor) | Self::Before(cursor) => Some(cursor),
        }
    }

    fn is_backward(&self) -> bool {
        matches!(self, Self::Before(_))
    }
}

/// A page of a season's entries, with the cursors of the previous and the next page.
#[derive(Debug)]
pub(super) struct EntryPage {
    pub(super) entries: Vec<RankedEntry>,
    pub(super) previous: Option<Cursor>,
    pub(super) next: Option<Cursor>,
}

fn foreign_cursor(start: &PageStart) -> Error {
    let parameter = if start.is_backward() { "?before" } else { "?after" };
    Error::field(parameter, "belongs to another leaderboard or season")
}

/// A page of a season's entries, with the leaderboard, the season, and the cursors of the previous and the next page.
#[derive(Debug)]
pub struct BoardPage {
    pub board: Board,
    pub season: Season,
    pub entries: Vec<RankedEntry>,
    pub previous: Option<Cursor>,
    pub next: Option<Cursor>,
}

/// An entry of a leaderboard, with its neighbors.
#[derive(Debug)]
pub struct EntryWithNeighbors {
    pub season: Season,
    /// The requested entry and its neighbors, best rank first.
    pub entries: Vec<RankedEntry>,
    /// Index of the requested entry in `entries`.
    pub index: usize,
}

impl Leaderboards {
    /// Returns a page of a leaderboard. `season` is the number of a season. If `season` is `None`, the cursor in
    /// `start` determines the season. Without a cursor, the page comes from the latest season.
    pub async fn page(
        &self,
        name: &BoardName,
        season: Option<i32>,
        start: &PageStart,
        limit: i64,
    ) -> Result<BoardPage> {
        let mut db = self.db.snapshot("leaderboard.page").await?;
        let board = boards::find_board(&mut db, name.as_str()).await?.ok_or_else(no_board)?;
        let row = match (season, start.cursor()) {
            (Some(number), _) => boards::find_season(&mut db, board.id, number).await?,
            (None, Some(cursor)) => {
                boards::find_season_by_id(&mut db, board.id, cursor.season).await?
            }
            (None, None) => boards::latest_season(&mut db, board.id).await?,
        };
        let missing = if start.cursor().is_some() && season.is_none() {
            foreign_cursor(start)
        } else {
            Error::NotFound("season")
        };
        let season = self.season_from(row.ok_or(missing)?)?;
        let page = self.read_page(&mut db, season.id, start, limit).await?;
        let EntryPage { mut entries, previous, next } = page;
        if season.ended_at.is_some() && !season.prizes.is_empty() {
            self.add_prizes(&mut db, season.id, &mut entries).await?;
        }
        Ok(BoardPage { board: self.board_from(board)?, season, entries, previous, next })
    }

    /// Returns the entry of a player, with up to `around` neighbors on each side.
    pub async fn around(
        &self,
        name: &BoardName,
        owner: &str,
        season: Option<i32>,
        around: i64,
    ) -> Result<EntryWithNeighbors> {
        let mut db = self.db.snapshot("leaderboard.around").await?;
        let board = boards::find_board(&mut db, name.as_str()).await?.ok_or_else(no_board)?;
        let row = match season {
            Some(number) => boards::find_season(&mut db, board.id, number).await?,
            None => boards::latest_season(&mut db, board.id).await?,
        };
        let season = self.season_from(row.ok_or(Error::NotFound("season"))?)?;
        let mut entries = self.read_around(&mut db, season.id, owner, around).await?;
        let index = entries.iter().position(|entry| entry.owner == owner);
        let index = index.ok_or(Error::NotFound("entry"))?;
        if season.ended_at.is_some() && !season.prizes.is_empty() {
            self.add_prizes(&mut db, season.id, &mut entries).await?;
        }
        Ok(EntryWithNeighbors { season, entries, index })
    }

    /// Reads a page of a season's entries, with the cursors of the previous and the next page.
    pub(super) async fn read_page(
        &self,
        db: &mut PgConnection,
        season: SeasonId,
        start: &PageStart,
        limit: i64,
    ) -> Result<EntryPage> {
        if start.cursor().is_some_and(|cursor| cursor.season != season) {
            return Err(foreign_cursor(start));
        }
        let timer = ReadTimer::start("page");
        let place = start.cursor().map_or(&[] as &[u8], |cursor| &cursor.place);
        // The query reads one more entry than the page shows, to find out whether there is another page.
        let rows = sql::page(db, season, place, start.is_backward(), limit + 1).await?;
        timer.finish(&self.metrics);
        let mut entries =
            rows.into_iter().map(RankedEntry::try_from).collect::<Result<Vec<_>>>()?;
        let has_more = i64::try_from(entries.len()).is_ok_and(|count| count > limit);
        if has_more && start.is_backward() {
            entries.remove(0);
        } else if has_more {
            entries.pop();
        }
        let cursor_of = |entry: &RankedEntry| Cursor { season, place: entry.place.clone() };
        let previous = entries.first().filter(|entry| entry.rank > 1).map(cursor_of);
        let next = entries.last().filter(|_| has_more || start.is_backward()).map(cursor_of);
        Ok(EntryPage { entries, previous, next })
    }

    /// Reads the entry of a player with its neighbors. Returns an empty list if the player has no entry.
    pub(super) async fn read_around(
        &self,
        db: &mut PgConnection,
        season: SeasonId,
        owner: &str,
        around: i64,
    ) -> Result<Vec<RankedEntry>> {
        let timer = ReadTimer::start(if around == 0 { "rank" } else { "around" });
        let rows = sql::around(db, season, owner, around).await?;
        timer.finish(&self.metrics);
        rows.into_iter().map(RankedEntry::try_from).collect()
    }

    async fn add_prizes(
        &self,
        db: &mut PgConnection,
        season: SeasonId,
        entries: &mut [RankedEntry],
    ) -> Result<()> {
        let ranks: Vec<i32> =
            entries.iter().filter_map(|entry| i32::try_from(entry.rank).ok()).collect();
        let prizes = prize::sql::of_ranks(db, season, &ranks).await?;
        let mut of_owner: HashMap<String, Vec<Prize>> = HashMap::new();
        for row in prizes {
            let prize = self.prize_from(row)?;
            of_owner.entry(prize.owner.clone()).or_default().push(prize);
        }
        for entry in entries {
            entry.prizes = of_owner.remove(&entry.owner).unwrap_or_default();
        }
        Ok(())
    }
}

/// Timer that measures how long a read of a leaderboard takes, and records this duration in the metrics.
struct ReadTimer {
    operation: &'static str,
    started: Instant,
}

impl ReadTimer {
    fn start(operation: &'static str) -> Self {
        Self { operation, started: Instant::now() }
    }

    fn finish(self, metrics: &Metrics) {
        let duration = self.started.elapsed().as_secs_f64();
        metrics.wallet_leaderboard_read_duration_seconds.with([self.operation]).record(duration);
    }
}

impl TryFrom<sql::EntryRow> for RankedEntry {
    type Error = Error;

    fn try_from(row: sql::EntryRow) -> Result<Self> {
        let metadata = row.metadata.map(RawValue::from_string).transpose();
        Ok(Self {
            rank: row.rank,
            owner: row.owner,
            score: row.score,
            subscore: row.subscore,
            metadata: metadata.map_err(|cause| Error::Internal(cause.into()))?,
            submissions: row.submissions,
            created_at: row.created_at,
            updated_at: row.updated_at,
            prizes: Vec::new(),
            place: row.place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_nothing_else_is_one() {
        let cursor = Cursor { season: SeasonId(7), place: (0..24).collect() };

        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for text in ["", "7", "AAAA", "!", &"A".repeat(42), &"A".repeat(44)] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
