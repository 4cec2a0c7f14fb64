//! Cache of game lists; each cached list is a complete response. The catalog has a revision, a number that increases
//! with each change. A cached list is valid as long as the revision has not changed since the list was read.
//!
//! A process that last read the revision more than [`CHECK_INTERVAL`] ago reads it again before it serves a cached
//! list, so no cached list is outdated for longer than that. The next request after a realtime event, such as
//! `game.updated`, also reads the revision again, so a change is usually visible within milliseconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::{GameFilter, sql};
use crate::cache::Cache;
use crate::db::Database;
use crate::error::Result;
use crate::ledger::tail::Tail;
use crate::telemetry::Metrics;

/// Longest time that a process relies on a catalog revision before it reads the revision again.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Shortest time between two reads of the catalog's revision, regardless of how many events arrive.
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Maximum number of cached game lists.
const LISTS_MAX: usize = 256;

/// Largest game list that is cached, in bytes.
const LIST_BYTES_MAX: usize = 256 * 1024;

/// A list of games, as the response that is sent to clients.
#[derive(Debug)]
pub struct CachedList {
    pub body: Bytes,
    pub etag: String,
    /// Path of the next page; `None` on the last page.
    pub next: Option<String>,
    /// Position in the ledger at which the list was read.
    pub position: String,
    /// Revision of the catalog that the list shows.
    pub revision: i64,
    /// Time at which the list expires, if its content depends on the time.
    pub expires_at: Option<Instant>,
}

/// The revision of the catalog, as this process last read it.
struct KnownRevision {
    revision: i64,
    /// Time just before the revision of the catalog was read; `None` if it must be read again.
    checked_at: Option<Instant>,
    /// Number of changes that this process has made to the catalog. If the number grows while a request reads the
    /// revision, the result may be outdated, and the next request reads the revision again.
    changes: u64,
    events: watch::Receiver<()>,
}

/// Cache of game lists, keyed by their filters.
pub struct CatalogCache {
    lists: Cache<GameFilter, Arc<CachedList>>,
    known: Mutex<KnownRevision>,
    /// Lock that is held while the revision of the catalog is read, so that concurrent requests share a single read.
    checking: tokio::sync::Mutex<()>,
    metrics: Arc<Metrics>,
}

impl CatalogCache {
    pub(in crate::games) fn new(tail: &Tail, metrics: Arc<Metrics>) -> Self {
        let known = KnownRevision {
            revision: 0,
            checked_at: None,
            changes: 0,
            events: tail.event_notifications(),
        };
        Self {
            lists: Cache::new(LISTS_MAX),
            known: Mutex::new(known),
            checking: tokio::sync::Mutex::default(),
            metrics,
        }
    }

    /// Returns the cached list for a filter, unless the catalog has changed since the list was made.
    pub(super) async fn get(
        &self,
        filter: &GameFilter,
        db: &Database,
    ) -> Result<Option<Arc<CachedList>>> {
        let revision = match self.fresh_revision() {
            Some(revision) => revision,
            // Boxed, so that this rare path does not enlarge the future of every request.
            None => Box::pin(self.read_revision(db)).await?,
        };
        let list = self.lists.get(filter).filter(|list| {
            let is_timely = list.expires_at.is_none_or(|expires_at| Instant::now() < expires_at);
            list.revision == revision && is_timely
        });
        let outcome = if list.is_some() { "hit" } else { "miss" };
        self.metrics.wallet_catalog_lists_total.with([outcome]).increment(1);
        Ok(list)
    }

    pub(super) fn insert(&self, filter: &GameFilter, list: &Arc<CachedList>) {
        if list.body.len() <= LIST_BYTES_MAX {
            self.lists.insert(filter.clone(), Arc::clone(list));
        }
    }

    /// Makes the next request read the revision of the catalog again, because this process has changed the catalog.
    pub(super) fn expire(&self) {
        let mut known = self.known();
        known.checked_at = None;
        known.changes += 1;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KnownRevision> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the revision of the catalog as this process last read it; `None` if the revision must be read again.
    fn fresh_revision(&self) -> Option<i64> {
        let known = self.known();
        let age = known.checked_at?.elapsed();
        let is_notified = age >= CHECK_INTERVAL_MIN && known.events.has_changed().unwrap_or(true);
        (age < CHECK_INTERVAL && !is_notified).then_some(known.revision)
    }

    /// Reads the revision of the catalog, unless a concurrent request has just done so.
    async fn read_revision(&self, db: &Database) -> Result<i64> {
        let _checking = self.checking.lock().await;
        if let Some(revision) = self.fresh_revision() {
            return Ok(revision);
        }
        let checked_at = Instant::now();
        let changes = {
            let mut known = self.known();
            known.events.mark_unchanged();
            known.changes
        };
        let mut db = db.acquire("games.revision").await?;
        let revision = sql::revision(&mut db).await?;
        let mut known = self.known();
        known.revision = revision;
        known.checked_at = (known.changes == changes).then_some(checked_at);
        Ok(revision)
    }
}
