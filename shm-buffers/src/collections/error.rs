//! [`CollectionError`]: why buffers are not a collection.

use std::str::Utf8Error;

/// Why buffers are not a collection.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    /// The first offset is not 0, or the last one is not the number of elements.
    #[error(
        "cannot use the lists: their offsets cover {start}..{end}, but there are {len} elements; offsets start with 0 and end with the number of elements"
    )]
    Cover {
        /// The first offset.
        start: u64,
        /// The last offset.
        end: u64,
        /// The number of elements.
        len: usize,
    },
    /// The offsets of an entry decrease or point outside.
    #[error(
        "entry {index} is damaged: its offsets are {start}..{end}, and there are {len} elements; build the collection again, or load an undamaged image"
    )]
    Offsets {
        /// The index of the entry.
        index: usize,
        /// The offset where it starts.
        start: u64,
        /// The offset where it ends.
        end: u64,
        /// The number of elements.
        len: usize,
    },
    /// A string is not UTF-8.
    #[error("string {index} is not UTF-8; build the collection again, or load an undamaged image")]
    Utf8 {
        /// The index of the string.
        index: usize,
        /// The position of the first invalid byte.
        source: Utf8Error,
    },
    /// A map does not have one value for each key.
    #[error("cannot use the map: it has {keys} keys and {values} values; it needs a value for each key")]
    Lengths {
        /// The number of keys.
        keys: usize,
        /// The number of values.
        values: usize,
    },
    /// The table of a set or map is too short for its keys.
    #[error(
        "cannot use the table of {slots} slots for {keys} keys: it needs {needed}; build the collection again, or load an undamaged image"
    )]
    Slots {
        /// The number of keys.
        keys: usize,
        /// The number of slots.
        slots: usize,
        /// The least number of slots for this number of keys.
        needed: usize,
    },
    /// A key occurs twice.
    #[error(
        "key {index} occurs again later; remove it, or `collect` the entries so that the last one counts"
    )]
    Duplicate {
        /// The index of the first of the equal keys.
        index: usize,
    },
    /// A lookup of a key does not find it.
    #[error("the table does not find key {index}; build the collection again, or load an undamaged image")]
    Lost {
        /// The index of the key.
        index: usize,
    },
}

crate::debug_with_causes!(CollectionError);
