//! Checks whether a client that reconnects can continue from its last position without missing an event.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::hub::Hub;
use super::position::{BookPosition, SealedPosition};
use crate::error::{Error, Result};
use crate::ledger::tail::PositionFacts;

/// Longest time that a position stays in the cache of checked positions. After that, the position is checked in the
/// database again.
const CHECK_AGE_MAX: Duration = Duration::from_secs(1);

/// Maximum number of positions that are checked in the database at the same time.
const READS_MAX: usize = 8;

/// Maximum number of checked positions in the cache.
const CHECKED_MAX: usize = 256;

/// Cache of positions from which clients can continue. It avoids reads from the database when many clients reconnect
/// with the same position after a restart.
pub(super) struct CheckedPositions {
    known: Mutex<VecDeque<(BookPosition, Instant)>>,
    /// Limits how many positions are checked in the database at the same time.
    reads: Semaphore,
}

impl Default for CheckedPositions {
    fn default() -> Self {
        Self { known: Mutex::default(), reads: Semaphore::new(READS_MAX) }
    }
}

impl CheckedPositions {
    fn contain(&self, position: &BookPosition) -> bool {
        let mut known = self.lock();
        known.retain(|(_, at)| at.elapsed() < CHECK_AGE_MAX);
        known.iter().any(|(known, _)| known == position)
    }

    fn add(&self, position: BookPosition) {
        let mut known = self.lock();
        known.truncate(CHECKED_MAX - 1);
        known.push_front((position, Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(BookPosition, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Parses the position from which a client wants to continue. Returns [`Error::Unrecoverable`] if the client would
    /// miss events, because they were deleted or lost.
    pub(super) async fn continuation(&self, after: &str) -> Result<BookPosition> {
        let position = after.parse::<BookPosition>().map_err(|_| {
            Error::field("/after", "is not a position: send the value of the header Book-Position")
        })?;
        let books = self.tail().books();
        if i32::try_from(position.books.len()).is_ok_and(|count| count > books) {
            // Another process has created a book that this process does not follow.
            return Err(Error::Overloaded);
        }
        let position = position.with_books(books);
        if self.checked.contain(&position) {
            return Ok(position);
        }
        let _permit = self.checked.reads.acquire().await;
        // While this client waited, the same position may have been checked for another client.
        if self.checked.contain(&position) {
            return Ok(position);
        }
        for book in &position.books {
            let facts = self.tail().position_facts(book.seq, self.retention).await?;
            if let Some(reason) = obstacle(&position, book, &facts) {
                self.metrics().wallet_ws_replays_total.with(["unrecoverable"]).increment(1);
                return Err(Error::Unrecoverable { reason, position: facts.now });
            }
        }
        self.checked.add(position.clone());
        Ok(position)
    }
}

impl Hub {
    /// Returns the position at which a new subscription begins: the position up to which the hub has delivered
    /// everything or, if the hub is not running, the newest position in the database.
    pub(super) async fn current_position(&self) -> Result<BookPosition> {
        if let Some(position) = self.position().await {
            return Ok(position);
        }
        let _permit = self.checked.reads.acquire().await;
        Ok(self.database_position().await?.with_books(self.tail().books()))
    }

    /// Returns the position that includes all transfers and events in the database.
    pub(super) async fn database_position(&self) -> Result<BookPosition> {
        let facts = self.tail().position_facts(0, self.retention).await?;
        facts
            .now
            .parse()
            .map_err(|_| Error::Internal(anyhow::anyhow!("the database has no position")))
    }
}

/// Returns the reason why a client that continues from `position` would miss transfers of `book` (a part of the
/// ledger), or events of the event table. Returns `None` if the client would miss neither.
fn obstacle(
    position: &BookPosition,
    book: &SealedPosition,
    facts: &PositionFacts,
) -> Option<&'static str> {
    let Ok(now) = facts.now.parse::<BookPosition>() else {
        return Some("the database has no position");
    };
    let batch = facts.batch.as_deref().map(str::as_bytes);
    if position.epoch != now.epoch {
        Some("the position belongs to another installation, or to a time before a restore")
    } else if batch.is_none() || position.event.seq > now.event.seq {
        Some("the position is ahead of the book")
    } else if batch != Some(&book.batch[..]) {
        Some("the transfers before the position were lost in a failover")
    } else if facts.is_expired || position.event.seq <= facts.pruned_xid {
        Some("the position is older than --event-retention")
    } else {
        None
    }
}
