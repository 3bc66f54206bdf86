//! Strings, lists, sets and maps that lie in [`Buffer`](crate::Buffer)s, and are read in shared memory without being rebuilt.
//!
//! | in the model | in shared memory | `get` returns |
//! |---|---|---|
//! | `Vec<String>` | [`Strings`] | `Option<&str>` |
//! | `Vec<Vec<u32>>` | [`Lists<u32>`](Lists) | `Option<&[u32]>` |
//! | `HashMap<String, Vec<u32>>` | [`StringMap<Lists<u32>>`](StringMap) | `Option<&[u32]>` |
//! | `HashMap<String, f32>` | [`StringMap<Buffer<f32>>`](StringMap) | `Option<&f32>` |
//! | `HashMap<u64, String>` | [`IntMap<u64, Strings>`](IntMap) | `Option<&str>` |
//! | `HashMap<(u32, u32), f32>` | [`IntMap<[u32; 2], Buffer<f32>>`](IntMap) | `Option<&f32>` |
//! | `HashSet<String>` | [`StringSet`] | |
//! | a vocabulary: `Vec<String>` and `HashMap<String, usize>` | [`StringSet`] with [`position`](Set::position) | |
//!
//! All of them are immutable and cheap to clone. Each is built from the type on its left with `From` or `collect`. In a model,
//! one line changes:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::collections::HashMap;
//!
//! use serde::{Deserialize, Serialize};
//! use shm_buffers::{Backing, Image, Lists, StringMap, share_move};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Model {
//!     postings: StringMap<Lists<u32>>, // it was: HashMap<String, Vec<u32>>
//! }
//!
//! let postings: HashMap<String, Vec<u32>> =
//!     [("apple".to_owned(), vec![3, 7]), ("pear".to_owned(), vec![])].into();
//! let model = Model { postings: postings.into() };
//! assert_eq!(model.postings.get("apple"), Some(&[3, 7][..]));
//!
//! let image = share_move(model, &Backing::Auto)?;
//! let handle = image.handle()?; // goes to another process, which does
//! let theirs: Model = Image::attach(&handle)?.load()?; // the time does not depend on the number of entries
//! assert_eq!(theirs.postings["apple"], [3, 7]);
//! assert_eq!(theirs.postings.get("plum"), None);
//! # Ok(()) }
//! ```
//!
//! # Serialization
//!
//! While a model is shared, the buffers of a collection travel out of band, as any buffer does. In another format (JSON, for
//! example), a collection is what the standard library's type would be: a sequence or a map.
//!
//! # Damaged images
//!
//! The bytes of an image are not trusted, and loading a collection reads only the first and last of its offsets: lengths that
//! contradict each other are refused with the reason ([`CollectionError`], the reason of
//! [`LoadError::Decode`](crate::LoadError::Decode)). Everything else is checked when it is used. An entry whose offsets
//! decrease or point outside, or whose text is not UTF-8, is *damaged*: `get` returns `None` for it. `Index` and iterators,
//! which cannot, return an empty string or list. A damaged table of a set or map does not find some keys; a lookup reads each
//! slot once at most. So a damaged image causes wrong values, but neither panics nor endless loops. `validate` checks a
//! collection whole, and [`Image::verify`](crate::Image::verify) compares the checksum of an image.
//!
//! # Design
//!
//! Strings and lists are two buffers: one with all elements, and one with the `u64` offset of each entry (the layout of
//! Arrow's `LargeUtf8` and `LargeList`).
//!
//! A set is a column of keys in the order of insertion and a table, and a map adds a column of values. The table is open
//! addressing with linear probing over a `Buffer<u64>`, at most two thirds full. A slot has the index of its key in the low
//! bits, as many as the number of keys takes, and the hash in the others, so that a lookup compares a key only if 40 bits or
//! more are equal. Slots are sorted by hash, and the first slot of a hash is proportional to it. So a lookup of an absent key
//! stops at the first greater hash and is as short as that of a present one. Nothing wraps around: the last entries may
//! overflow the table by a few slots.
//!
//! Hashes must be equal in each process and version, so they have no random key: XXH3 for strings and one folded
//! multiplication for each integer. Sources that choose keys maliciously can make building and lookups slow, but not wrong.
//!
//! No crate fits. `hashbrown` can't lie in shared memory. `odht` has keys of a fixed size and, by its own words, no stability
//! guarantee. `zerovec::ZeroMap` is a binary search: 19 comparisons for 500,000 keys. `fst` walks an automaton byte by byte, its
//! values are `u64`, and its keys must be sorted (the benchmark compares it). Perfect hashing (`ph`, `ptr_hash`) has to compare
//! the key as well, to recognise an absent one, and takes longer to build.

mod column;
mod error;
mod hash;
mod iter;
mod lists;
mod map;
mod serial;
mod set;
mod strings;
mod table;

pub use column::{Column, Keys};
pub use error::CollectionError;
pub use hash::IntKey;
pub use iter::{Entries, Iter};
pub use lists::Lists;
pub use map::{IntMap, Map, StringMap};
pub use set::{IntSet, Set, StringSet};
pub use strings::Strings;
