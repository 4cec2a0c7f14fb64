//! One at a time: changes of the same hold, or refunds of the same transfer, within this process.
//!
//! The database lets only one of two changes take effect, and the other is decided anew. Waiting for one's turn
//! keeps many of them from undoing each other's batches; for the truth it is not needed.

use tokio::sync::{Mutex, MutexGuard};

/// Things that share a turn wait for each other without need; this many keep that rare.
const TURNS: usize = 512;

pub(super) struct Turns(Box<[Mutex<()>]>);

impl Turns {
    pub(super) fn new() -> Self {
        Self((0..TURNS).map(|_| Mutex::new(())).collect())
    }

    /// Waits for the turn of this transfer; it ends when the guard is dropped.
    pub(super) async fn take(&self, id: i64) -> MutexGuard<'_, ()> {
        let place = usize::try_from(id.unsigned_abs()).unwrap_or_default() % TURNS;
        self.0[place].lock().await
    }
}
