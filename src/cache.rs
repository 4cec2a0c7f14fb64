//! Bounded caches of recently used entries: [`GenerationalMap`] for a single owner, and [`Cache`] for use by several
//! threads.
//!
//! Each entry is in the young or in the old generation. New entries go to the young generation. When the young
//! generation holds half of the maximum number of entries, it becomes the old generation, and the entries of the
//! previous old generation are dropped. So a map of at most `n` entries always holds the `n / 2` most recently inserted
//! entries. The ledger writer relies on this guarantee. Caches that prefer frequently used entries lack the guarantee,
//! because they may drop an entry right after its insertion. `docs/architecture.md`, "Decisions", compares this module
//! with existing crates.

use std::hash::Hash;
use std::mem;
use std::sync::{PoisonError, RwLock};

use foldhash::HashMap;

/// A map of at most `entries_max` entries that always keeps the `entries_max / 2` most recently inserted entries.
#[derive(Debug)]
pub struct GenerationalMap<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Hash + Eq, V> GenerationalMap<K, V> {
    /// Creates an empty map, without allocating memory for the entries in advance.
    pub fn new(entries_max: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            generation_max: (entries_max / 2).max(1),
        }
    }

    /// Returns the value of a key. The entry stays in its generation, so a read does not protect it from being dropped.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Adds or replaces an entry in the young generation. If the young generation is full, it first becomes the old
    /// generation, and a new young generation begins.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_max {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Removes an entry from both generations and returns the value that [`Self::get`] would have returned.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }

    /// Removes every entry.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

/// A [`GenerationalMap`] behind a read-write lock, for use by several threads. The cache keeps the most recently read
/// or inserted entries; the map alone keeps the most recently inserted entries.
#[derive(Debug)]
pub struct Cache<K, V>(RwLock<GenerationalMap<K, V>>);

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// Creates a cache of at most `entries_max` entries that always keeps the `entries_max / 2` most recently read or
    /// inserted entries.
    pub fn new(entries_max: usize) -> Self {
        Self(RwLock::new(GenerationalMap::new(entries_max)))
    }

    /// Returns a copy of the value of a key. An entry of the old generation is copied to the young generation, so that
    /// it stays in the cache.
    pub fn get(&self, key: &K) -> Option<V> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = map.young.get(key) {
            return Some(value.clone());
        }
        let value = map.old.get(key)?.clone();
        drop(map);
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    /// Adds or replaces an entry.
    pub fn insert(&self, key: K, value: V) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    /// Removes an entry and returns its value.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_entry_is_gone_from_both_generations() {
        let cache = Cache::new(2);
        cache.insert(1, "old");
        cache.insert(2, "ends the first generation");
        cache.insert(1, "new");

        assert_eq!(cache.remove(&1), Some("new"));

        assert_eq!(cache.get(&1), None);
    }

    #[test]
    fn used_entries_stay_and_the_rest_is_dropped() {
        let cache = Cache::new(10);

        for key in 0..1_000 {
            cache.insert(key, key);
            assert_eq!(cache.get(&0), Some(0), "used each time");
        }

        assert_eq!(cache.get(&999), Some(999));
        assert_eq!(cache.get(&500), None);
        let map = cache.0.read().unwrap();
        assert!(map.young.len() + map.old.len() <= 10);
    }

    #[test]
    fn the_last_half_of_the_bound_is_kept_without_being_read() {
        let mut map = GenerationalMap::new(10);

        for key in 0..1_000 {
            map.insert(key, key);

            for kept in (key - 4).max(0)..=key {
                assert_eq!(map.get(&kept), Some(&kept));
            }
        }

        assert!(map.young.len() + map.old.len() <= 10);
        map.clear();
        assert_eq!(map.get(&999), None);
    }
}
