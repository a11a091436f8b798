//! Maps that are cheap to publish: a snapshot shares all shards with the one before but those that changed.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// The hasher everywhere in this crate: fixed, so that equal inputs give equal snapshots. Keys are names and
/// addresses of objects, which whoever may write objects chooses; a request's own text is only ever looked up.
pub(crate) type Hasher = foldhash::fast::FixedState;
/// A hash map with [`Hasher`].
pub(crate) type Map<K, V> = HashMap<K, V, Hasher>;
/// A hash set with [`Hasher`].
pub(crate) type Set<K> = HashSet<K, Hasher>;

/// With 100,000 entries a change copies some 400 of them.
const SHARDS: usize = 256;
/// Not the maps' own seed: with it, all keys of one shard would share their top hash bits, which the map reads too.
const SHARD_SEED: u64 = 0x51a7_d5ed;

/// A hash map in [`SHARDS`] parts, each copied when written while a snapshot still holds it.
#[derive(Debug)]
pub(crate) struct Sharded<K, V> {
    shards: Arc<Vec<Arc<Map<K, V>>>>,
}

impl<K, V> Clone for Sharded<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Map::default());
        Self { shards: Arc::new(vec![empty; SHARDS]) }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
        (Hasher::with_seed(SHARD_SEED).hash_one(key) >> 56) as usize % SHARDS
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[Self::shard_of(key)].get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = Self::shard_of(&key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]).insert(key, value)
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = Self::shard_of(key);
        // Looked for first: a miss copies nothing.
        self.shards[shard].get(key)?;
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]).remove(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_held() {
        let mut now: Sharded<u32, u32> = Sharded::default();
        for n in 0..1000 {
            now.insert(n, n);
        }
        let before = now.clone();
        assert_eq!(now.insert(7, 70), Some(7));
        assert_eq!(now.remove(&8), Some(8));
        assert_eq!(now.remove(&8), None);
        assert_eq!((before.get(&7), before.get(&8), before.iter().count()), (Some(&7), Some(&8), 1000));
        assert_eq!((now.get(&7), now.get(&8), now.iter().count()), (Some(&70), None, 999));
        let shared = before.shards.iter().zip(now.shards.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2);
    }
}
