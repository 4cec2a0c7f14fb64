//! The leaderboard of balances, which ranks players by the highest balance that their main wallet ever reached.
//!
//! A task reads the transfers of the ledger. It stores the balances and its position in the ledger in the same
//! transaction, so every transfer counts exactly once and in order. Each currency has its own leaderboard; the HTTP
//! routes return the leaderboard of `--default-currency`.

mod sql;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sqlx::PgConnection;

use super::Leaderboards;
use super::page::{Cursor, EntryPage, PageStart, RankedEntry};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::ids::PlayerId;
use crate::ledger::currency::Currency;
use crate::ledger::tail::{ReaderOptions, Segment, SegmentHandler, Tail};
use crate::play::feed::raise::{HighestRaises, Raise};
use crate::tasks::Tasks;

const READER: ReaderOptions = ReaderOptions {
    name: "leaderboard",
    items_max: 5_000,
    pause: Duration::from_millis(250),
    // Longer pauses save writes: of all balances that a player reaches between two reads of the ledger, only the
    // highest is recorded.
    pause_steps: 4,
};

/// Starts the task that records balances on the leaderboard until the process stops.
pub fn start(tail: &Tail, tasks: &Tasks) {
    tail.follow::<HighestRaises, _>(READER, |_| Recorder, tasks);
}

/// Records the balances of main wallets on the leaderboards of their currencies.
struct Recorder;

impl SegmentHandler<HighestRaises> for Recorder {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<Raise>) -> Result<()> {
        let mut of_currency: BTreeMap<&str, (Vec<&str>, Vec<i64>)> = BTreeMap::new();
        for raise in &segment.items {
            let (owners, balances) = of_currency.entry(&raise.currency).or_default();
            owners.push(&raise.player);
            balances.push(raise.balance);
        }
        // The boards are locked in currency order, so that two processes that record balances cannot deadlock.
        for (currency, (owners, balances)) in of_currency {
            sql::record(db, currency, &owners, &balances).await?;
        }
        Ok(())
    }
}

/// An entry of the leaderboard of balances.
#[derive(Debug)]
pub struct BalanceEntry {
    pub entry: RankedEntry,
    /// Whether the caller may see the balance.
    pub is_visible: bool,
}

/// A page of the leaderboard of balances.
#[derive(Debug)]
pub struct BalancePage {
    pub currency: Currency,
    pub entries: Vec<BalanceEntry>,
    pub previous: Option<Cursor>,
    pub next: Option<Cursor>,
}

/// The entry of a player on the leaderboard of balances, with its neighbors.
#[derive(Debug)]
pub struct BalanceNeighbors {
    pub currency: Currency,
    pub entries: Vec<BalanceEntry>,
    /// Index of the player's entry in `entries`.
    pub index: usize,
}

impl Leaderboards {
    /// Returns a page of the leaderboard of balances in the default currency.
    pub async fn balance_page(
        &self,
        start: &PageStart,
        limit: i64,
        caller: &Caller,
    ) -> Result<BalancePage> {
        let currency = self.wallets.default_currency();
        let mut db = self.db.snapshot("leaderboard.balances").await?;
        let season = sql::season(&mut db, currency.code()).await?;
        let Some(season) = season else {
            return Ok(BalancePage { currency, entries: Vec::new(), previous: None, next: None });
        };
        let page = self.read_page(&mut db, season, start, limit).await?;
        let EntryPage { entries, previous, next } = page;
        let entries = with_visibility(&mut db, entries, caller).await?;
        Ok(BalancePage { currency, entries, previous, next })
    }

    /// Returns the entry of a player on the leaderboard of balances in the default currency, with up to `around`
    /// neighbors on each side.
    pub async fn balance_neighbors(
        &self,
        player: &PlayerId,
        around: i64,
        caller: &Caller,
    ) -> Result<BalanceNeighbors> {
        let currency = self.wallets.default_currency();
        let mut db = self.db.snapshot("leaderboard.balances").await?;
        let season = sql::season(&mut db, currency.code()).await?;
        let season = season.ok_or(Error::NotFound("entry"))?;
        let entries = self.read_around(&mut db, season, player.as_str(), around).await?;
        let index = entries.iter().position(|entry| entry.owner == player.as_str());
        let index = index.ok_or(Error::NotFound("entry"))?;
        let entries = with_visibility(&mut db, entries, caller).await?;
        Ok(BalanceNeighbors { currency, entries, index })
    }
}

/// Marks the entries whose balance the caller may see. The permissions are the same as for reading a player's balance.
async fn with_visibility(
    db: &mut PgConnection,
    entries: Vec<RankedEntry>,
    caller: &Caller,
) -> Result<Vec<BalanceEntry>> {
    let owners: Vec<String> = entries.iter().map(|entry| entry.owner.clone()).collect();
    let players: HashMap<_, _> = sql::players(db, &owners).await?.into_iter().collect();
    let entries = entries.into_iter().map(|entry| {
        let player = players.get(&entry.owner).copied();
        let is_visible = player.is_some() && caller.require_read_player(player).is_ok();
        BalanceEntry { entry, is_visible }
    });
    Ok(entries.collect())
}
