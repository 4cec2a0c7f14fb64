//! Leaderboards with seasons and prizes. The database computes the ranks.
//!
//! Start reading at `migrations/0021_leaderboards.sql`, which explains how entries are sorted and counted, and contains
//! the SQL function that records submitted scores. Concurrent submissions to the same leaderboard share a transaction
//! ([`submission::queue`]). Every query is a single SQL statement, so the ranks in its result are consistent with each
//! other.
//!
//! | part | file |
//! |---|---|
//! | leaderboards: create, change, delete | [`board`] |
//! | submission of scores | [`submission`] |
//! | pages and ranks | [`page`] |
//! | the end of a season | [`season`], [`schedule`] |
//! | the leaderboard of balances | [`balances`] |
//! | prizes, and the account that pays them | [`prize`] |

pub mod balances;
pub mod board;
pub mod cli;
pub mod http;
pub mod jobs;
pub mod page;
pub mod prize;
mod schedule;
pub mod season;
mod sql;
pub mod submission;

use std::sync::Arc;

use uuid::Uuid;

use crate::auth::Policy;
use crate::cache::Cache;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::ids::LeaderboardId;
use crate::ledger::companion::CompanionKind;
use crate::ledger::currency::Currencies;
use crate::secret::digest;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::wallet::Wallets;

use self::board::BoardName;
use self::submission::queue::SubmissionQueue;

pub use self::prize::PRIZE_PAID;

/// SQL statements of this module that run in the same transaction as a ledger posting.
pub static COMPANIONS: [&CompanionKind; 1] = [&PRIZE_PAID];

/// Maximum number of leaderboards whose ids are cached.
const IDS_MAX: usize = 10_000;

/// The operations on leaderboards, which the routes and jobs call. Cheap to clone.
#[derive(Clone)]
pub struct Leaderboards(Arc<LeaderboardsParts>);

pub struct LeaderboardsParts {
    db: Database,
    wallets: Wallets,
    queue: SubmissionQueue,
    /// Cached ids of leaderboards, by the hash of their names. A cached id may be stale, because a leaderboard can be
    /// deleted and its name reused. The database rejects a stale id.
    ids: Cache<Uuid, LeaderboardId>,
    policy: Policy,
    metrics: Arc<Metrics>,
}

impl std::ops::Deref for Leaderboards {
    type Target = LeaderboardsParts;

    fn deref(&self) -> &LeaderboardsParts {
        &self.0
    }
}

impl Leaderboards {
    /// Creates a handle to the leaderboards, and starts the task that batches submitted scores.
    pub fn start(
        db: Database,
        wallets: Wallets,
        policy: Policy,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        submission::preregister(&metrics);
        prize::preregister(&metrics);
        let queue = SubmissionQueue::start(db.clone(), Arc::clone(&metrics), tasks);
        let ids = Cache::new(IDS_MAX);
        Self(Arc::new(LeaderboardsParts { db, wallets, queue, ids, policy, metrics }))
    }
}

impl LeaderboardsParts {
    pub(super) fn currencies(&self) -> &Currencies {
        self.wallets.currencies()
    }
}

fn no_board() -> Error {
    Error::NotFound("leaderboard")
}

impl Leaderboards {
    /// Returns the id of the leaderboard with the given name, from the cache if possible.
    async fn id_of(&self, name: &BoardName) -> Result<LeaderboardId> {
        let key = digest(&[name.as_str()]);
        if let Some(id) = self.ids.get(&key) {
            return Ok(id);
        }
        let mut db = self.db.acquire("leaderboard.find").await?;
        let board = sql::find_board(&mut db, name.as_str()).await?.ok_or_else(no_board)?;
        self.ids.insert(key, board.id);
        Ok(board.id)
    }

    /// Removes the id of a leaderboard from the cache. Returns whether the id was cached.
    fn forget_id(&self, name: &BoardName) -> bool {
        self.ids.remove(&digest(&[name.as_str()])).is_some()
    }
}
