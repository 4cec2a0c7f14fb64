//! Whether a client can continue from a position: nothing that happened since may be lost or unknown.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::hub::Hub;
use super::position::BookPosition;
use crate::error::{Error, Result};
use crate::ledger::tail::PositionFacts;

/// Longest time that a checked position is good for.
const CHECK_AGE_MAX: Duration = Duration::from_secs(1);

/// Most checked positions that are cached.
const CHECKED_MAX: usize = 256;

/// Positions that were found to continue a moment ago: after a restart, many clients come with the same one.
#[derive(Default)]
pub(super) struct CheckedPositions(Mutex<VecDeque<(BookPosition, Instant)>>);

impl Hub {
    /// The position that a client wants to continue from; [`Error::Unrecoverable`] if it cannot.
    pub(super) async fn continuation(&self, after: &str) -> Result<BookPosition> {
        let position = after
            .parse::<BookPosition>()
            .map_err(|_| Error::field("/after", "is not a position: take it from Book-Position"))?;
        let mut checked = self.checked.0.lock().await;
        checked.retain(|(_, at)| at.elapsed() < CHECK_AGE_MAX);
        if checked.iter().any(|(known, _)| *known == position) {
            return Ok(position);
        }
        let facts = self.tail().position_facts(position.seq, self.retention).await?;
        if let Some(reason) = obstacle(&position, &facts) {
            self.metrics().wallet_ws_replays_total.with(["unrecoverable"]).increment(1);
            return Err(Error::Unrecoverable { reason, position: facts.now });
        }
        checked.truncate(CHECKED_MAX - 1);
        checked.push_front((position, Instant::now()));
        Ok(position)
    }
}

/// The reason for which a client cannot continue from a position, if there is one.
fn obstacle(position: &BookPosition, facts: &PositionFacts) -> Option<&'static str> {
    let Ok(now) = facts.now.parse::<BookPosition>() else {
        return Some("the database has no position");
    };
    let batch = facts.batch.as_deref().map(str::as_bytes);
    if position.epoch != now.epoch {
        Some("the position belongs to another installation, or to a time before a restore")
    } else if batch.is_none() || position.event.seq > now.event.seq {
        Some("the position is ahead of the book")
    } else if batch != Some(&position.batch[..]) {
        Some("the transfers before the position were lost in a failover")
    } else if facts.is_expired || position.event.seq <= facts.pruned_xid {
        Some("the position is older than --event-retention")
    } else {
        None
    }
}
