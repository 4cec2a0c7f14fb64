//! Striped lock: operations that invalidate each other, such as changes of the same hold, run one at a time within this
//! process.
//!
//! The database lets only one of two concurrent changes take effect; the other change is then evaluated again. The lock
//! keeps many concurrent changes from invalidating each other's batches. Correctness does not depend on the lock.

use tokio::sync::{Mutex, MutexGuard};

/// Number of stripes. Operations on two ids of the same stripe wait for each other without need; with this many
/// stripes, that is rare.
const STRIPES: usize = 4_096;

/// A fixed number of locks, shared by any number of ids.
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

    /// Locks the stripe of this id until the guard is dropped.
    pub async fn lock(&self, id: i64) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(id.unsigned_abs()).unwrap_or_default() % STRIPES;
        self.0[stripe].lock().await
    }
}
