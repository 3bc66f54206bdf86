//! Buffers that travel beside the encoding of a value instead of in it.
//!
//! A sender serializes a value within [`collect`]: each large [`Buffer`](crate::Buffer) in it, at any depth, then leaves its bytes
//! out and is returned instead. A receiver deserializes within [`restore`], with the same buffers in the same order. So
//! the bytes of a buffer are copied once, to where the receiver reads them, and not through the encoding.
//!
//! serde has no channel from a `Serialize` implementation to the caller, so this one is thread-local. An encoding that was made within
//! [`collect`] is read within [`restore`] only.
//!
//! ```
//! use shm_buffers::out_of_band::{Received, collect, restore};
//! # #[cfg(feature = "models")] {
//! use shm_buffers::Buffer;
//!
//! let output = (3, Buffer::from(vec![0.5_f32; 10_000]));
//! let collected = collect(4096, || postcard::to_allocvec(&output));
//! let (encoded, sent) = (collected.result.unwrap(), collected.buffers);
//! assert!(encoded.len() < 10 && sent[0].len() == 40_000);
//!
//! let received = sent.iter().map(|buffer| Received::Bytes(Box::new(buffer.to_vec()))).collect();
//! let back: (i32, Buffer<f32>) = restore(received, || postcard::from_bytes(&encoded)).unwrap();
//! assert_eq!(back, output);
//! # }
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;

use crate::arena::HeldBlock;

/// A buffer that a sender has collected.
pub struct Sent(Box<dyn AsRef<[u8]> + Send + Sync>);

/// A buffer that has arrived at its receiver.
pub enum Received {
    /// A block of an arena. The restored buffer copies it when its elements are looked at.
    Block(HeldBlock),
    /// Private memory, which becomes the memory of the buffer.
    Bytes(Box<dyn AsRef<[u8]> + Send + Sync>),
}

/// The result of [`collect`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected<R> {
    /// The result of the serialization.
    pub result: R,
    /// The buffers that were left out.
    pub buffers: Vec<Sent>,
    /// The value has no buffer at all, not even a small one, so its encoding is the same as outside of [`collect`].
    pub is_plain: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Off,
    /// Buffers of at least this number of bytes are collected.
    Collecting(usize),
    Restoring,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Off) };
    /// The number of buffers that were serialized in the mode `Collecting`. Most values have none, and then nothing else is touched.
    static SEEN: Cell<usize> = const { Cell::new(0) };
    static COLLECTED: RefCell<Vec<Sent>> = const { RefCell::new(Vec::new()) };
    /// The buffers that are not restored yet, the last one first.
    static RECEIVED: RefCell<Vec<Received>> = const { RefCell::new(Vec::new()) };
}

/// Runs `serialize`, during which buffers of at least `min_bytes` bytes are left out.
pub fn collect<R>(min_bytes: usize, serialize: impl FnOnce() -> R) -> Collected<R> {
    let mut scope = Scope::enter(Mode::Collecting(min_bytes));
    let result = serialize();
    let (buffers, seen) = scope.leave();
    Collected {
        result,
        buffers,
        is_plain: seen == 0,
    }
}

/// Runs `deserialize`, during which the buffers that were left out are those of `received`.
///
/// The encoding is not trusted: a buffer that was not received, or does not have whole elements, is an error of the format.
pub fn restore<R>(mut received: Vec<Received>, deserialize: impl FnOnce() -> R) -> R {
    received.reverse();
    let outer = RECEIVED.replace(received);
    let _received = Outer(outer);
    let _scope = Scope::enter(Mode::Restoring);
    deserialize()
}

/// A mode of this thread. The previous one is restored when the scope is left, also by a panic.
struct Scope {
    before: Mode,
    seen_before: usize,
    collected_before: Vec<Sent>,
    left: bool,
}

impl Scope {
    fn enter(mode: Mode) -> Self {
        let before = MODE.replace(mode);
        Self {
            before,
            seen_before: SEEN.replace(0),
            collected_before: match before {
                Mode::Collecting(_) => COLLECTED.take(),
                _ => Vec::new(),
            },
            left: false,
        }
    }

    /// Returns what was collected, and how many buffers were serialized.
    fn leave(&mut self) -> (Vec<Sent>, usize) {
        self.left = true;
        MODE.set(self.before);
        let seen = SEEN.replace(self.seen_before);
        let before = std::mem::take(&mut self.collected_before);
        let collected = match (seen, before.len()) {
            (0, 0) => Vec::new(),
            _ => COLLECTED.replace(before),
        };
        (collected, seen)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !self.left {
            self.leave();
        }
    }
}

/// The received buffers of an outer scope. The drop puts them back.
struct Outer(Vec<Received>);

impl Drop for Outer {
    fn drop(&mut self) {
        drop(RECEIVED.replace(std::mem::take(&mut self.0)));
    }
}

/// How a buffer is serialized at the moment.
#[cfg(feature = "models")]
pub(crate) enum Serialized {
    /// As it always is.
    Alone,
    /// Marked as being here.
    Marked,
    /// Marked as being left out.
    LeftOut,
}

/// Decides how a buffer of `bytes` bytes and this alignment is serialized, and takes it if it is left out.
#[cfg(feature = "models")]
pub(crate) fn serialized<B>(bytes: usize, align: usize, buffer: impl FnOnce() -> B) -> Serialized
where
    B: AsRef<[u8]> + Send + Sync + 'static,
{
    let Mode::Collecting(min_bytes) = MODE.get() else {
        return Serialized::Alone;
    };
    SEEN.set(SEEN.get() + 1);
    if bytes < min_bytes.max(1) || align > HeldBlock::ALIGN {
        return Serialized::Marked;
    }
    COLLECTED.with_borrow_mut(|collected| collected.push(Sent(Box::new(buffer()))));
    Serialized::LeftOut
}

/// Returns whether buffers are marked as being here or left out.
#[cfg(feature = "models")]
pub(crate) fn is_restoring() -> bool {
    MODE.get() == Mode::Restoring
}

/// Takes the next buffer that was left out, if there is one.
#[cfg(feature = "models")]
pub(crate) fn take_received() -> Option<Received> {
    RECEIVED.with_borrow_mut(Vec::pop)
}

impl Received {
    /// Returns the number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "no buffer that was left out is empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Block(block) => block.len(),
            Self::Bytes(bytes) => (**bytes).as_ref().len(),
        }
    }
}

impl Deref for Sent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sent({} bytes)", self.len())
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(block) => f.debug_tuple("Block").field(block).finish(),
            Self::Bytes(_) => write!(f, "Bytes({} bytes)", self.len()),
        }
    }
}
