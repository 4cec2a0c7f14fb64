//! Striped lock: makes operations on the same id, such as two changes of the same hold, run one at a time within this
//! process.
//!
//! Of two concurrent changes of a row, the database lets only the first take effect, and the batch of the second must
//! be evaluated again. The lock avoids this repeated work. Correctness does not depend on it.

use tokio::sync::{Mutex, MutexGuard};

/// Number of stripes. Two ids that share a stripe wait for each other without need; with this many stripes, that is
/// rare.
const STRIPES: usize = 4_096;

/// A fixed number of locks. Each id is assigned to a lock, which it shares with other ids.
#[derive(Debug)]
pub struct StripedLock(Box<[Mutex<()>]>);

impl Default for StripedLock {
    fn default() -> Self {
        Self::new()
    }
}

impl StripedLock {
    pub fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// Locks the stripe that this id is assigned to, until the guard is dropped.
    pub async fn lock(&self, id: i64) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(id.unsigned_abs()).unwrap_or_default() % STRIPES;
        self.0[stripe].lock().await
    }
}
