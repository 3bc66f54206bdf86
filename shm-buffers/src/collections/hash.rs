//! Hashes that are equal in each process, on each platform and in each version of this crate: they are stored in images.

use bytemuck::Pod;
use twox_hash::XxHash3_64;

/// Constants without a pattern: the first digits of the fractions of pi and of the golden ratio.
const ADD: u64 = 0x243F_6A88_85A3_08D3;
const MULTIPLY: u64 = 0x9E37_79B9_7F4A_7C15;

/// An integer that can be the key of an [`IntMap`](super::IntMap): `u8` to `u64`, `i8` to `i64`, `usize`, `isize`, and arrays
/// of them (`[u32; 2]` for a pair). It can't be implemented by other crates.
///
/// Keys `usize` and `isize` have different sizes on different platforms, and so have images with them.
pub trait IntKey: Pod + Eq + Send + Sync + sealed::Sealed {
    /// Continues `state` with this key.
    #[doc(hidden)]
    fn mix(&self, state: u64) -> u64;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! int_keys {
    ($($int:ty),*) => {
        $(impl sealed::Sealed for $int {}

        impl IntKey for $int {
            #[inline]
            fn mix(&self, state: u64) -> u64 {
                // Negative numbers are extended by their sign.
                fold(state ^ *self as u64 ^ ADD)
            }
        })*
    };
}

int_keys!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

impl<K: sealed::Sealed, const N: usize> sealed::Sealed for [K; N] {}

impl<K: IntKey, const N: usize> IntKey for [K; N]
where
    [K; N]: Pod,
{
    #[inline]
    fn mix(&self, state: u64) -> u64 {
        self.iter().fold(state, |state, key| key.mix(state))
    }
}

/// Returns the product with a constant, its high half folded onto the low half: each bit depends on all bits of `x`.
#[inline]
fn fold(x: u64) -> u64 {
    let product = u128::from(x) * u128::from(MULTIPLY);
    (product >> 64) as u64 ^ product as u64
}

/// Returns the hash of an integer.
#[inline]
pub(super) fn of_int(key: &impl IntKey) -> u64 {
    key.mix(0)
}

/// Returns the hash of a string's bytes.
#[inline]
pub(super) fn of_bytes(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_stored_images() {
        // XXH3's own test vectors for seed 0: the empty input, and one byte.
        assert_eq!(of_bytes(b""), 0x2D06_8005_38D3_94C2);
        assert_eq!(of_bytes(b"a"), 0xE6C6_32B6_1E96_4E1F);
        // Computed apart from this code.
        assert_eq!(of_int(&7_u64), 0x807F_0B3F_C4ED_B268);
        assert_eq!(of_int(&-7_i64), 0xAAA7_6DF4_453A_3F75);
        assert_eq!(of_int(&[1_u32, 2]), 0x8FF9_6C91_2305_7040);
        // The width of an integer does not matter, its sign does.
        assert_eq!(of_int(&7_u8), of_int(&7_u64));
        assert_eq!(of_int(&-7_i8), of_int(&-7_i64));
        assert_ne!(of_int(&7_i8), of_int(&-7_i8));
        assert_ne!(of_int(&[1_u32, 2]), of_int(&[2_u32, 1]));
    }

    #[test]
    fn patterns_of_integers_spread_over_the_high_bits() {
        const BUCKETS: usize = 1 << 12;
        let patterns: [fn(u64) -> u64; 5] = [
            |i| i,
            |i| i << 20,
            |i| i << 48,
            |i| i * 1_000_000_007,
            |i| u64::MAX - i,
        ];
        for (pattern, key) in patterns.iter().enumerate() {
            let mut counts = vec![0_u32; BUCKETS];
            for i in 0..8 * BUCKETS as u64 {
                counts[(of_int(&key(i)) >> 52) as usize] += 1;
            }
            let most = counts.iter().max().copied().unwrap_or(0);
            // Random hashes have 25 in the fullest of 4096 buckets with 8 each.
            assert!(most < 40, "pattern {pattern}: {most} in a bucket");
        }
    }
}
