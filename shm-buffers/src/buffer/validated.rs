//! [`Validated`]: which buffers of an image are known to be valid archives.

/// The buffers of an image that [`Image::load_validating`](crate::Image::load_validating) has found to be valid archives, each with
/// its type. It can be sent to other processes of the same executable.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validated(Vec<(u32, u64)>);

#[cfg(feature = "rkyv")]
impl Validated {
    /// Returns whether the buffer is known to be valid as this type.
    pub(crate) fn has(&self, buffer: u32, kind: u64) -> bool {
        self.0.contains(&(buffer, kind))
    }

    pub(crate) fn add(&mut self, buffer: u32, kind: u64) {
        if !self.has(buffer, kind) {
            self.0.push((buffer, kind));
        }
    }
}

/// Returns a number for a type that is the same in all processes of one executable.
#[cfg(feature = "rkyv")]
pub(crate) fn kind_of<T: 'static>() -> u64 {
    use std::any::TypeId;
    use std::hash::{Hash as _, Hasher};

    /// Takes the hash over that a type id has already.
    struct Folded(u64);

    impl Hasher for Folded {
        fn write(&mut self, bytes: &[u8]) {
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                self.write_u64(u64::from_le_bytes(word));
            }
        }

        fn write_u64(&mut self, word: u64) {
            self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    let mut folded = Folded(0);
    TypeId::of::<T>().hash(&mut folded);
    folded.finish()
}
