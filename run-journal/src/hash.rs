//! Hashes of encoded tasks: XXH3 with 64 bits and seed 0 (github.com/Cyan4973/xxHash). Two inputs are the same if their tasks have
//! the same hashes, in the same order.

use twox_hash::XxHash3_64;

/// Returns the hash of an encoded task.
#[inline]
pub fn task_hash(encoded: &[u8]) -> u64 {
    XxHash3_64::oneshot(encoded)
}

/// Returns the hash of several consecutive tasks: that of a single task, or else the hash of the hashes.
pub(crate) fn hash_of_tasks(hashes: &[u64]) -> u64 {
    match hashes {
        [only] => *only,
        several => {
            let bytes: Vec<u8> = several.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            XxHash3_64::oneshot(&bytes)
        }
    }
}

/// Returns the hash of `bytes` at one position of a file. At another position they have another one.
pub(crate) fn hash_at(position: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(position, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation: `xxhsum -H3`.
    #[test]
    fn hashes_are_those_of_the_reference_implementation() {
        assert_eq!(task_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(task_hash(b"a"), 0xe6c6_32b6_1e96_4e1f);
        assert_eq!(task_hash(b"abc"), 0x78af_5f94_892f_3950);
    }

    #[test]
    fn several_tasks_have_a_hash_that_depends_on_their_order() {
        let hashes = [task_hash(b"a"), task_hash(b"abc")];
        assert_eq!(hash_of_tasks(&hashes[..1]), hashes[0]);
        assert_ne!(hash_of_tasks(&hashes), hash_of_tasks(&[hashes[1], hashes[0]]));
        assert_ne!(hash_at(0, b"abc"), hash_at(1, b"abc"));
    }
}
