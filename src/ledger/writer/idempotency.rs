//! Idempotency keys that this process knows: keys of postings in progress, and a cache of recently used keys.
//!
//! A posting whose key is in progress is not written again: it waits for the reply to the first posting with this key.
//! The cache spares the database most lookups for clients that retry soon.

use foldhash::HashMap;
use uuid::Uuid;

use super::queue::{PostOutcome, PostReply, QueuedPosting};
use crate::cache::GenerationalMap;
use crate::idempotency_key::HashedKey;
use crate::ledger::Refusal;

/// Maximum number of recently used keys in the cache, 64 bytes each. The cache never evicts the newest keys, up to half
/// of this number. This half must be larger than the number of keys in a lookup, because the writer first inserts all
/// keys of a lookup into the cache and then reads them from it.
const ANSWERED_MAX: usize = 65_536;

/// Content hash and seqs of the posting that was written under an idempotency key.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredKey {
    pub(super) content: Uuid,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
}

#[derive(Debug)]
pub(super) struct RecentKeys {
    /// Keys of postings in progress, each with the later postings under this key, which wait for the first posting's
    /// reply.
    pending: HashMap<Uuid, Vec<QueuedPosting>>,
    answered: GenerationalMap<Uuid, StoredKey>,
}

impl Default for RecentKeys {
    fn default() -> Self {
        Self { pending: HashMap::default(), answered: GenerationalMap::new(ANSWERED_MAX) }
    }
}

impl RecentKeys {
    /// Finds the posting that was recently written under this key.
    pub(super) fn find(&self, hash: Uuid) -> Option<StoredKey> {
        self.answered.get(&hash).copied()
    }

    /// Returns the posting if no other posting with its key is in progress; otherwise queues it behind that posting and
    /// returns `None`.
    pub(super) fn admit(&mut self, item: QueuedPosting) -> Option<QueuedPosting> {
        let Some(key) = item.posting.key else { return Some(item) };
        if let Some(waiting) = self.pending.get_mut(&key.hash) {
            waiting.push(item);
            return None;
        }
        self.pending.insert(key.hash, Vec::new());
        Some(item)
    }

    /// Removes a key from the keys in progress, and returns the later postings under this key, which waited for the
    /// first posting's reply.
    pub(super) fn end(&mut self, key: HashedKey) -> Vec<QueuedPosting> {
        self.pending.remove(&key.hash).unwrap_or_default()
    }

    /// Clears the cache of recently used keys, because the database has lost their postings.
    pub(super) fn forget(&mut self) {
        self.answered.clear();
    }

    /// Caches which posting was written under a key.
    pub(super) fn remember(&mut self, hash: Uuid, stored: StoredKey) {
        self.answered.insert(hash, stored);
    }
}

/// The reply to a posting whose idempotency key was used before: the seqs of the earlier posting, or an error if the
/// content differs.
pub(super) fn replay_reply(key: HashedKey, stored: StoredKey) -> PostReply {
    if key.has_content(stored.content) {
        Ok(PostOutcome::Replay { first_seq: stored.first_seq, last_seq: stored.last_seq })
    } else {
        Err(Refusal::KeyReused.into())
    }
}
