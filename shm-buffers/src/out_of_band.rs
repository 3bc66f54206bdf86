//! Buffers that travel beside the encoding of a value instead of in it.
//!
//! A sender serializes a value within [`collect`]: each large [`Buffer`](crate::Buffer) in it, at any depth, then leaves its bytes
//! out and is returned instead. A receiver deserializes within [`restore`], with the same buffers in the same order. So
//! the bytes of a buffer are copied once, to where the receiver reads them, and not through the encoding. The encoding has the position of
//! each buffer that it leaves out, so the format may read fields in another order, or twice.
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
use std::sync::Arc;

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
    /// The buffers that were left out. Without any, the encoding is the same as outside of [`collect`].
    pub buffers: Vec<Sent>,
}

/// How this thread serializes and deserializes buffers at the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As always.
    Off,
    /// As always, unless there is a large buffer: that fails, because the encoding must have marks from its beginning.
    Looking,
    /// There was a large buffer.
    Found,
    /// Buffers are marked, and large ones are collected.
    Collecting,
    Restoring,
}

thread_local! {
    /// The mode, and the number of bytes from which on a buffer is large.
    static STATE: Cell<(Mode, usize)> = const { Cell::new((Mode::Off, 0)) };
    /// The last value had large buffers, so the next one probably has some, too.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
    static COLLECTED: RefCell<Vec<Sent>> = const { RefCell::new(Vec::new()) };
    /// The buffers that were left out. `None` for one that must not be restored again.
    static RECEIVED: RefCell<Vec<Option<Shared>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that has arrived. Cheap to clone: all clones share its memory.
#[derive(Clone)]
#[cfg_attr(
    not(feature = "models"),
    expect(dead_code, reason = "without models, no buffer is restored")
)]
pub(crate) enum Shared {
    Block(HeldBlock),
    Bytes(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

/// Runs `serialize`, during which buffers of at least `min_bytes` bytes are left out.
///
/// It may run twice, of which the second result counts: the encoding of a value without large buffers has no marks.
#[inline]
pub fn collect<R>(min_bytes: usize, mut serialize: impl FnMut() -> R) -> Collected<R> {
    let min_bytes = min_bytes.max(1);
    if EXPECTED.get()
        && let Some(collected) = collect_large(min_bytes, &mut serialize)
    {
        return collected;
    }
    let scope = Scope::enter(Mode::Looking, min_bytes);
    let result = serialize();
    let found = STATE.get().0 == Mode::Found;
    drop(scope);
    if found && let Some(collected) = collect_large(min_bytes, &mut serialize) {
        return collected;
    }
    let buffers = Vec::new();
    Collected { result, buffers }
}

/// Runs `serialize`. Returns `None` if no buffer was left out.
#[cold]
fn collect_large<R>(min_bytes: usize, serialize: &mut impl FnMut() -> R) -> Option<Collected<R>> {
    let scope = Scope::enter(Mode::Collecting, min_bytes);
    let result = serialize();
    let buffers = COLLECTED.take();
    drop(scope);
    EXPECTED.set(!buffers.is_empty());
    (!buffers.is_empty()).then_some(Collected { result, buffers })
}

/// Runs `deserialize`, during which the buffers that were left out are those of `received`.
///
/// The encoding is not trusted: a buffer that was not received, or does not have whole elements, is an error of the format.
pub fn restore<R>(received: Vec<Received>, deserialize: impl FnOnce() -> R) -> R {
    let shared = |received| match received {
        Received::Block(block) => Some(Shared::Block(block)),
        Received::Bytes(bytes) => Some(Shared::Bytes(Arc::from(bytes))),
    };
    let outer = RECEIVED.replace(received.into_iter().map(shared).collect());
    let _received = Outer(outer);
    let _scope = Scope::enter(Mode::Restoring, 0);
    deserialize()
}

/// A mode of this thread. The drop restores the previous one, also after a panic.
struct Scope {
    before: (Mode, usize),
    /// The buffers that an outer scope has collected.
    collected_before: Vec<Sent>,
}

impl Scope {
    #[inline]
    fn enter(mode: Mode, min_bytes: usize) -> Self {
        let before = STATE.replace((mode, min_bytes));
        Self {
            before,
            collected_before: match before.0 {
                Mode::Off => Vec::new(),
                _ => COLLECTED.take(),
            },
        }
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        let (mode, _) = STATE.replace(self.before);
        if mode == Mode::Collecting || self.before.0 != Mode::Off {
            drop(COLLECTED.replace(std::mem::take(&mut self.collected_before)));
        }
    }
}

/// The received buffers of an outer scope. The drop puts them back.
struct Outer(Vec<Option<Shared>>);

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
    /// Not at all: the value is serialized again.
    Again,
    /// Marked as being here.
    Marked,
    /// Marked as being left out, as the buffer at this position.
    LeftOut(u32),
}

/// Decides how a buffer of `bytes` bytes and this alignment is serialized, and takes it if it is left out.
#[cfg(feature = "models")]
pub(crate) fn serialized<B>(bytes: usize, align: usize, buffer: impl FnOnce() -> B) -> Serialized
where
    B: AsRef<[u8]> + Send + Sync + 'static,
{
    let (mode, min_bytes) = STATE.get();
    let is_large = bytes >= min_bytes && align <= HeldBlock::ALIGN;
    match mode {
        Mode::Off | Mode::Restoring => return Serialized::Alone,
        Mode::Looking if !is_large => return Serialized::Alone,
        Mode::Looking | Mode::Found => {
            STATE.set((Mode::Found, min_bytes));
            return Serialized::Again;
        }
        Mode::Collecting if !is_large => return Serialized::Marked,
        Mode::Collecting => {}
    }
    let buffer = Sent(Box::new(buffer()));
    COLLECTED.with_borrow_mut(|collected| match u32::try_from(collected.len()) {
        Ok(position) => {
            collected.push(buffer);
            Serialized::LeftOut(position)
        }
        Err(_) => Serialized::Marked,
    })
}

/// Returns whether buffers are marked as being here or left out.
#[cfg(feature = "models")]
pub(crate) fn is_restoring() -> bool {
    STATE.get().0 == Mode::Restoring
}

/// Returns the buffer at this position of those that were left out, if there is one.
#[cfg(feature = "models")]
pub(crate) fn received(position: u32) -> Option<Shared> {
    RECEIVED.with_borrow(|received| received.get(position as usize).cloned().flatten())
}

/// Lets no other buffer have the bytes at this position: they were copied, and a forged encoding could have them copied without end.
#[cfg(feature = "models")]
pub(crate) fn forget_received(position: u32) {
    let forgotten =
        RECEIVED.with_borrow_mut(|received| received.get_mut(position as usize).and_then(Option::take));
    drop(forgotten);
}

#[cfg(feature = "models")]
impl Shared {
    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Block(block) => block.len(),
            Self::Bytes(bytes) => (**bytes).as_ref().len(),
        }
    }
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
