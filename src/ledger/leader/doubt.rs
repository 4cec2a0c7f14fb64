//! Idempotency keys of postings that were sent to the leader and have no reply.
//!
//! Until the leader replies, a refusal of another posting under the same key is not final: it would tell a client that
//! repeats its request that no money moves, although the leader may still write the first posting.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::cache::Cache;

/// Maximum number of remembered keys of postings without a reply; the oldest are forgotten first.
const UNANSWERED_MAX: usize = 100_000;

/// Hashed idempotency keys of postings that may still take effect at the leader.
pub(super) struct Doubts {
    /// Whether any posting was ever sent to a leader. If not, [`Self::contain`] looks up no keys.
    has_sent: AtomicBool,
    /// Number of postings under each key that were sent to the leader and await a reply.
    sent: Mutex<HashMap<Uuid, u32>>,
    /// Keys of postings to which the leader did not reply.
    unanswered: Cache<Uuid, ()>,
}

impl Default for Doubts {
    fn default() -> Self {
        Self {
            has_sent: AtomicBool::new(false),
            sent: Mutex::default(),
            unanswered: Cache::new(UNANSWERED_MAX),
        }
    }
}

impl Doubts {
    /// Remembers the keys of postings that are sent to the leader.
    pub(super) fn send(&self, keys: impl Iterator<Item = Uuid>) {
        self.has_sent.store(true, Ordering::Release);
        let mut sent = self.sent();
        for key in keys {
            *sent.entry(key).or_default() += 1;
        }
    }

    /// Forgets the keys of postings whose requests have ended: the leader replied or cannot have read the postings, or
    /// [`Self::leave_open`] has recorded their keys.
    pub(super) fn settle(&self, keys: impl Iterator<Item = Uuid>) {
        let mut sent = self.sent();
        for key in keys {
            if let Some(count) = sent.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    sent.remove(&key);
                }
            }
        }
    }

    /// Remembers the key of a posting to which the leader did not reply. Must be called before [`Self::settle`], so
    /// that [`Self::contain`] finds the key at any time.
    pub(super) fn leave_open(&self, key: Uuid) {
        self.unanswered.insert(key, ());
    }

    /// Returns whether an earlier posting under this key may still take effect. If the new posting is sent to the
    /// leader, earlier postings that await a reply there do not count, because the leader knows them.
    pub(super) fn contain(&self, key: Uuid, is_for_leader: bool) -> bool {
        // Checked in this order, because a posting without a reply moves from `sent` to `unanswered`.
        self.has_sent.load(Ordering::Acquire)
            && ((!is_for_leader && self.sent().contains_key(&key))
                || self.unanswered.get(&key).is_some())
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<Uuid, u32>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_doubt_until_the_leader_answers_and_for_long_if_it_does_not() {
        let (doubts, [a, b]) = (Doubts::default(), [1, 2].map(Uuid::from_u128));
        let in_doubt = || [a, b].map(|key| [true, false].map(|leader| doubts.contain(key, leader)));

        doubts.send([a, b].into_iter());
        assert_eq!(in_doubt(), [[false, true], [false, true]]);
        doubts.settle([a].into_iter());
        doubts.leave_open(b);
        doubts.settle([b].into_iter());

        assert_eq!(in_doubt(), [[false, false], [true, true]]);
    }

    #[test]
    fn a_key_that_was_sent_twice_is_in_doubt_until_both_are_answered() {
        let (doubts, key) = (Doubts::default(), Uuid::from_u128(1));

        doubts.send([key, key].into_iter());
        doubts.settle([key].into_iter());
        assert!(doubts.contain(key, false));
        doubts.settle([key].into_iter());

        assert!(!doubts.contain(key, false));
    }
}
