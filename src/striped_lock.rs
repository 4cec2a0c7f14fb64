//! Striped lock: operations that invalidate each other, such as changes of one hold, run one at a time within this process.
//!
//! The database lets only one of two concurrent changes take effect, and the other is decided again. The lock keeps
//! many of them from invalidating each other's batches; correctness does not depend on it.

use tokio::sync::{Mutex, MutexGuard};

/// Number of stripes. Two ids on one stripe wait for each other without need; this many make that rare.
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
