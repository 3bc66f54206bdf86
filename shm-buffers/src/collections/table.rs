//! [`Table`]: from hashes to the indices of keys, in one buffer. [The module](super) has the design.

use super::error::CollectionError;
use crate::buffer::Buffer;

/// A slot without a key. As a hash and an index, it would have the greatest index, which [`Table::index_mask`] excludes.
const EMPTY: u64 = u64::MAX;

/// The slots of a set or map. A slot is a hash in the high bits and the index of a key in the low bits.
#[derive(Clone)]
pub(super) struct Table {
    slots: Buffer<u64>,
    /// The number of slots at which a probe can start. The slots behind them are overflow.
    starts: u64,
    /// The low bits of a slot: its index. No index has all of them set.
    index_mask: u64,
}

/// Returns the number of slots at which a probe can start, for this number of keys: at most two thirds of them
/// are taken.
fn starts(keys: usize) -> usize {
    keys.saturating_add(keys / 2).saturating_add(1)
}

impl Table {
    /// Creates the table of `keys` keys from its slots. They are checked when they are used.
    pub(super) fn from_slots(slots: Buffer<u64>, keys: usize) -> Result<Self, CollectionError> {
        let needed = starts(keys);
        if slots.len() < needed {
            let slots = slots.len();
            return Err(CollectionError::Slots { keys, slots, needed });
        }
        Ok(Self::of(slots, keys))
    }

    fn of(slots: Buffer<u64>, keys: usize) -> Self {
        let starts = starts(keys) as u64;
        let index_bits = u64::BITS - (keys as u64).leading_zeros();
        Self {
            slots,
            starts,
            index_mask: (1 << index_bits) - 1,
        }
    }

    /// Builds the table of `keys` keys, with the hash of the key at an index, and whether the keys at two indices are equal.
    /// Returns it, and the indices of keys that a later one replaced.
    pub(super) fn build(
        keys: usize,
        hash: impl Fn(usize) -> u64,
        same: impl Fn(usize, usize) -> bool,
    ) -> (Self, Vec<usize>) {
        let shape = Self::of(Buffer::default(), keys);
        let mut slots = vec![EMPTY; starts(keys)];
        let mut replaced = Vec::new();
        for index in 0..keys {
            let tag = hash(index) & !shape.index_mask;
            let own = tag | index as u64;
            // Slots stay sorted: the smaller of `new` and the slot stays, and the greater one moves on.
            let mut new = own;
            let mut at = shape.start(tag);
            loop {
                let Some(slot) = slots.get_mut(at) else {
                    slots.push(new);
                    break;
                };
                if *slot == EMPTY {
                    *slot = new;
                    break;
                }
                let other = (*slot & shape.index_mask) as usize;
                if new == own && *slot & !shape.index_mask == tag && same(other, index) {
                    replaced.push(other);
                    *slot = new;
                    break;
                }
                if *slot > new {
                    std::mem::swap(slot, &mut new);
                }
                at += 1;
            }
        }
        let slots = slots.into();
        (Self { slots, ..shape }, replaced)
    }

    /// Returns the slot at which the probe for a hash starts: the greater the hash, the later.
    #[inline]
    fn start(&self, tag: u64) -> usize {
        ((u128::from(tag) * u128::from(self.starts)) >> 64) as usize
    }

    /// Returns the first index with this hash for which `is_key` holds. The index may be out of bounds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_key: impl Fn(usize) -> bool) -> Option<usize> {
        let tag = hash & !self.index_mask;
        for &slot in self.slots.get(self.start(tag)..)? {
            if slot >= tag {
                if slot & !self.index_mask != tag || slot == EMPTY {
                    return None;
                }
                let index = (slot & self.index_mask) as usize;
                if is_key(index) {
                    return Some(index);
                }
            }
        }
        None
    }

    pub(super) fn slots(&self) -> &Buffer<u64> {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds the table of these hashes, all of different keys, and checks that each key is found where it is.
    fn check(hashes: &[u64]) -> Table {
        let (table, replaced) = Table::build(hashes.len(), |index| hashes[index], |_, _| false);
        assert_eq!(replaced, [0; 0]);
        for (index, hash) in hashes.iter().enumerate() {
            assert_eq!(
                table.find(*hash, |it| it == index),
                Some(index),
                "of {}",
                hashes.len()
            );
        }
        let taken: Vec<u64> = table.slots.iter().copied().filter(|it| *it != EMPTY).collect();
        assert!(taken.len() == hashes.len() && taken.is_sorted());
        table
    }

    #[test]
    fn equal_least_and_greatest_hashes_are_found() {
        for hash in [0, 1 << 63, u64::MAX] {
            for keys in 0..50 {
                let table = check(&vec![hash; keys]);
                assert_eq!(table.find(hash, |_| false), None);
                assert_eq!(table.find(!hash, |_| true), None);
            }
        }
    }

    #[test]
    fn hashes_that_overflow_the_end_are_found() {
        let hashes: Vec<u64> = (0..100).map(|i| u64::MAX - (i << 20)).collect();
        assert!(check(&hashes).slots.len() > starts(100));
    }

    #[test]
    fn later_keys_replace_equal_ones() {
        // Keys 0 to 9, each three times, in two groups of equal hashes.
        let hash = |index: usize| ((index % 10 % 2) as u64) << 63;
        let (table, mut replaced) = Table::build(30, hash, |a, b| a % 10 == b % 10);
        replaced.sort_unstable();
        assert_eq!(replaced, (0..20).collect::<Vec<_>>());
        for key in 0..10 {
            assert_eq!(table.find(hash(key), |it| it % 10 == key), Some(20 + key));
        }
    }

    #[test]
    fn slots_that_are_full_or_random_end_each_lookup() {
        for slot in [0, 1, u64::MAX - 1, 1 << 63] {
            let table = Table::from_slots(vec![slot; 16].into(), 10).expect("enough slots");
            for hash in [0, 1 << 63, u64::MAX] {
                assert_eq!(table.find(hash, |_| false), None);
            }
        }
        assert!(Table::from_slots(vec![0; 15].into(), 10).is_err());
    }
}
