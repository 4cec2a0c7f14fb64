//! What was used lately, up to a bound: a map that forgets, and whose reads cost next to nothing.
//!
//! Two generations: who is used moves to the young one; when that is full, the old one is forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::sync::{PoisonError, RwLock};

pub struct Cache<K, V> {
    generations: RwLock<Generations<K, V>>,
    generation_max: usize,
}

struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq + Copy, V: Clone> Cache<K, V> {
    /// Keeps at most `entries_max`, and at least the half of them that was used last.
    pub fn new(entries_max: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { generations: RwLock::new(generations), generation_max: (entries_max / 2).max(1) }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = generations.young.get(key) {
            return Some(value.clone());
        }
        let value = generations.old.get(key)?.clone();
        drop(generations);
        self.insert(*key, value.clone());
        Some(value)
    }

    /// The value, which is forgotten.
    pub fn take(&self, key: &K) -> Option<V> {
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        let old = generations.old.remove(key);
        generations.young.remove(key).or(old)
    }

    pub fn insert(&self, key: K, value: V) {
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= self.generation_max {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_gone_from_both_generations() {
        let recent = Cache::new(2);
        recent.insert(1, "old");
        recent.insert(2, "pushes it out of the young");
        recent.insert(1, "new");

        assert_eq!(recent.take(&1), Some("new"));

        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let recent = Cache::new(10);

        for key in 0..1_000 {
            recent.insert(key, key);
            assert_eq!(recent.get(&0), Some(0), "used each time");
        }

        assert_eq!(recent.get(&999), Some(999));
        assert_eq!(recent.get(&500), None);
        let generations = recent.generations.read().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 10);
    }
}
