//! Idempotency keys that this process knows: those being worked on, and those it answered lately.
//!
//! A posting whose key is being worked on waits for that answer instead of being decided: equal keys merge.
//! The keys answered lately save the database most lookups of impatient clients; they are bounded by two generations.

use foldhash::HashMap;
use uuid::Uuid;

use super::queue::QueuedPosting;
use crate::idempotency::HashedKey;

/// Half of how many keys are remembered: 64 bytes each.
const GENERATION_MAX: usize = 32_768;

/// Where the posting of a key is.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredKey {
    pub(super) content: Uuid,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
}

#[derive(Debug, Default)]
pub(super) struct RecentKeys {
    /// Being worked on, with those that wait for the answer.
    pending: HashMap<Uuid, Vec<QueuedPosting>>,
    young: HashMap<Uuid, StoredKey>,
    old: HashMap<Uuid, StoredKey>,
}

impl RecentKeys {
    /// The posting that was written under this key lately.
    pub(super) fn find(&self, hash: Uuid) -> Option<StoredKey> {
        self.young.get(&hash).or_else(|| self.old.get(&hash)).copied()
    }

    /// Starts the work on an item, or puts it behind the one with the same key.
    pub(super) fn admit(&mut self, item: QueuedPosting) -> Option<QueuedPosting> {
        let Some(key) = item.posting.key else { return Some(item) };
        if let Some(waiting) = self.pending.get_mut(&key.hash) {
            waiting.push(item);
            return None;
        }
        self.pending.insert(key.hash, Vec::new());
        Some(item)
    }

    /// Ends the work on a key, and returns who waited for the answer.
    pub(super) fn end(&mut self, key: HashedKey) -> Vec<QueuedPosting> {
        self.pending.remove(&key.hash).unwrap_or_default()
    }

    /// Forgets what was written: the book no longer has it.
    pub(super) fn forget(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Remembers where the posting of a key is.
    pub(super) fn remember(&mut self, hash: Uuid, known: StoredKey) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, known);
    }
}
