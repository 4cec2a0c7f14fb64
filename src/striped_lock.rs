//! Striped lock: makes operations on the same id, such as two changes to the same hold, run one at a time within this
//! process.
//!
//! If two operations change the same row concurrently, the database lets only the first change take effect, and the
//! ledger writer must process the batch with the second operation again. The lock avoids the repeated work. Correctness
//! does not depend on the lock.

use tokio::sync::{Mutex, MutexGuard};

/// Number of locks (stripes). Operations on two ids that share a lock wait for each other unnecessarily; with this many
/// locks, that is rare.
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

    /// Acquires the lock that `id` is assigned to, and holds it until the guard is dropped.
    pub async fn lock(&self, id: i64) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(id.unsigned_abs()).unwrap_or_default() % STRIPES;
        self.0[stripe].lock().await
    }
}
