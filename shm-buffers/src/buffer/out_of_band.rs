//! How a [`Buffer`](crate::Buffer) deep inside a model hands over its bytes while the model is shared, and gets them back
//! while it is loaded.
//!
//! serde has no channel from a `Serialize` implementation to the caller, so this one is a thread-local stack of scopes. A
//! scope lives as long as one call of [`sharing`] or [`loading`]. Scopes nest, and are popped after a panic.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::{self, Discriminant};

use safetensors::Dtype;

use super::element::Element;
use super::memory::MemoryRange;
use super::validated::Validated;
use crate::segment::Segment;

/// The name under which a buffer serializes its index.
pub(crate) const INDEX: &str = "Buffer index";

/// A buffer of a model that is being shared.
pub(crate) struct Part {
    pub(crate) element: Element,
    pub(crate) bytes: MemoryRange,
}

/// The address and length of memory, and the type of its elements: equal for buffers that are stored once.
type Identity = (usize, usize, Discriminant<Dtype>, usize);

impl Part {
    fn identity(&self) -> Identity {
        let Element { dtype, size, .. } = self.element;
        let start = self.bytes.as_ptr() as usize;
        (start, self.bytes.len(), mem::discriminant(&dtype), size)
    }
}

/// The buffers of an image that is being loaded, by index.
pub(crate) trait StoredBuffers {
    /// Returns the number of buffers.
    fn count(&self) -> usize;

    /// Returns where buffer `index` is, or the reason why that can't be known.
    fn get(&self, index: usize) -> Result<StoredBuffer<'_>, String>;

    /// Returns the name of buffer `index`, for error messages. This may take long.
    fn name(&self, index: usize) -> String;
}

/// A buffer of an image that is being loaded. Its position is not checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredBuffer<'a> {
    /// The segment with the elements: the image's, or another one.
    pub(crate) segment: &'a Segment,
    pub(crate) element: Element,
    /// Bytes from the start of the segment.
    pub(crate) offset: usize,
    /// The number of bytes.
    pub(crate) bytes: usize,
}

/// The buffers that a model has handed over so far, each with its field path once that is known.
#[derive(Default)]
struct Collected {
    parts: Vec<(Part, Option<String>)>,
    known: HashMap<Identity, usize>,
    /// The hashes of the buffers, if only those are wanted.
    hashes: Option<Vec<u64>>,
}

enum Scope {
    Sharing(Collected),
    /// `failure` is why a buffer was not found. Formats such as postcard drop the message of a custom error.
    Loading {
        buffers: Box<dyn StoredBuffers>,
        /// The archives that are known to be valid.
        validated: Validated,
        failure: Option<String>,
    },
}

thread_local! {
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

/// Pops its scope when dropped, also when a model's own serde code panics.
struct PopScope;

impl Drop for PopScope {
    fn drop(&mut self) {
        SCOPES.with_borrow_mut(Vec::pop);
    }
}

/// Runs `serialize`, during which buffers hand over their bytes. Returns the result and the buffers in the order of their
/// indices, each with its field path. A buffer that a model's own serializer writes inside of text or bytes has no path.
#[expect(
    clippy::type_complexity,
    reason = "the parts are taken apart by the one caller"
)]
pub(crate) fn sharing<R, E>(
    serialize: impl FnOnce() -> Result<R, E>,
) -> Result<(R, Vec<(Part, Option<String>)>), E> {
    SCOPES.with_borrow_mut(|scopes| scopes.push(Scope::Sharing(Collected::default())));
    let _pop = PopScope;
    let result = serialize()?;
    let collected = SCOPES.with_borrow_mut(|scopes| match scopes.last_mut() {
        Some(Scope::Sharing(collected)) => mem::take(collected),
        _ => Collected::default(),
    });
    Ok((result, collected.parts))
}

/// Runs `serialize`, during which buffers are hashed. Returns the result and the hashes, in the order in which the buffers were
/// serialized. The index under which a buffer serializes itself is a part of its hash, so it depends on nothing but the contents.
pub(crate) fn hashing<R, E>(serialize: impl FnOnce() -> Result<R, E>) -> Result<(R, Vec<u64>), E> {
    let collected = Collected {
        hashes: Some(Vec::new()),
        ..Collected::default()
    };
    SCOPES.with_borrow_mut(|scopes| scopes.push(Scope::Sharing(collected)));
    let _pop = PopScope;
    let result = serialize()?;
    let hashes = SCOPES.with_borrow_mut(|scopes| match scopes.last_mut() {
        Some(Scope::Sharing(collected)) => collected.hashes.take(),
        _ => None,
    });
    Ok((result, hashes.unwrap_or_default()))
}

/// A model of more buffers than this has names for large buffers only: a name costs more than a small buffer.
pub(crate) const MAX_NAMED: usize = 10_000;
/// The least bytes of a buffer that has a name in a model of more than [`MAX_NAMED`] buffers.
pub(crate) const MIN_NAMED: usize = 4 << 10;

/// Returns whether `index` is the buffer that was handed over last, has no path yet, and may need one.
pub(crate) fn needs_path(index: u32) -> bool {
    SCOPES.with_borrow(|scopes| match scopes.last() {
        Some(Scope::Sharing(Collected { parts, .. })) => {
            let last = parts.last().filter(|_| index as usize + 1 == parts.len());
            last.is_some_and(|(part, path)| {
                path.is_none() && (parts.len() <= MAX_NAMED || part.bytes.len() >= MIN_NAMED)
            })
        }
        _ => false,
    })
}

/// Sets the path of the buffer `index`.
pub(crate) fn set_path(index: u32, path: String) {
    SCOPES.with_borrow_mut(|scopes| {
        if let Some(Scope::Sharing(collected)) = scopes.last_mut()
            && let Some((_, slot)) = collected.parts.get_mut(index as usize)
        {
            *slot = Some(path);
        }
    });
}

/// Why a model was not loaded.
#[derive(Debug)]
pub(crate) enum LoadingError<E> {
    /// A buffer was not found. The reason names it.
    Buffer(String),
    /// The error of the format.
    Format(E),
}

/// Returns whether the buffer `index` is known to be a valid archive of this kind.
#[cfg(feature = "rkyv")]
pub(crate) fn is_validated(index: u32, kind: u64) -> bool {
    SCOPES.with_borrow(
        |scopes| matches!(scopes.last(), Some(Scope::Loading { validated, .. }) if validated.has(index, kind)),
    )
}

/// Records that the buffer `index` is a valid archive of this kind.
#[cfg(feature = "rkyv")]
pub(crate) fn add_validated(index: u32, kind: u64) {
    SCOPES.with_borrow_mut(|scopes| {
        if let Some(Scope::Loading { validated, .. }) = scopes.last_mut() {
            validated.add(index, kind);
        }
    });
}

/// Runs `deserialize`, during which buffers become views of the segments that `buffers` names. Returns the result, and which
/// archives are valid: those that were `known`, and those that were validated.
pub(crate) fn loading<R, E>(
    buffers: Box<dyn StoredBuffers>,
    known: &Validated,
    deserialize: impl FnOnce() -> Result<R, E>,
) -> Result<(R, Validated), LoadingError<E>> {
    let scope = Scope::Loading {
        buffers,
        validated: known.clone(),
        failure: None,
    };
    SCOPES.with_borrow_mut(|scopes| scopes.push(scope));
    let _pop = PopScope;
    let result = deserialize();
    let (validated, failure) = SCOPES.with_borrow_mut(|scopes| match scopes.last_mut() {
        Some(Scope::Loading {
            validated, failure, ..
        }) => (mem::take(validated), failure.take()),
        _ => Default::default(),
    });
    match (result, failure) {
        (Ok(model), _) => Ok((model, validated)),
        (Err(_), Some(failure)) => Err(LoadingError::Buffer(failure)),
        (Err(error), None) => Err(LoadingError::Format(error)),
    }
}

/// Hands over a buffer and returns its index, or `None` if no model is being shared. A buffer that occurs twice has one index.
pub(super) fn hand_over(part: impl FnOnce() -> Part) -> Option<Result<u32, &'static str>> {
    SCOPES.with_borrow_mut(|scopes| {
        let Some(Scope::Sharing(collected)) = scopes.last_mut() else {
            return None;
        };
        let part = part();
        if let Some(hashes) = &mut collected.hashes {
            let hash = twox_hash::XxHash3_64::oneshot_with_seed(part.element.code().into(), &part.bytes);
            hashes.push(hash);
            return Some(Ok(hash as u32));
        }
        let index = *collected.known.entry(part.identity()).or_insert_with(|| {
            collected.parts.push((part, None));
            collected.parts.len() - 1
        });
        Some(u32::try_from(index).map_err(|_| "a model can have 4294967296 buffers at most"))
    })
}

/// Returns whether a model is being shared.
pub(crate) fn is_sharing() -> bool {
    SCOPES.with_borrow(|scopes| matches!(scopes.last(), Some(Scope::Sharing(_))))
}

/// Returns whether a model is being loaded.
pub(crate) fn is_loading() -> bool {
    SCOPES.with_borrow(|scopes| matches!(scopes.last(), Some(Scope::Loading { .. })))
}

/// Returns the error for a part of a model whose buffers do not fit together. [`loading`] returns the same reason, also if the
/// format drops it.
pub(crate) fn refused<E: serde::de::Error>(reason: impl ToString) -> E {
    let reason = reason.to_string();
    let error = E::custom(&reason);
    SCOPES.with_borrow_mut(|scopes| {
        if let Some(Scope::Loading { failure, .. }) = scopes.last_mut() {
            *failure = Some(reason);
        }
    });
    error
}

/// Takes back the buffer with this index: calls `view` with its segment, its offset in bytes and its length in elements, if
/// its elements are of the wanted type.
pub(crate) fn take_back<R>(
    index: u32,
    (wanted, type_name): (Element, &str),
    view: impl FnOnce(&Segment, usize, usize) -> Option<R>,
) -> Result<R, String> {
    SCOPES.with_borrow_mut(|scopes| {
        let Some(Scope::Loading { buffers, failure, .. }) = scopes.last_mut() else {
            return Err("no image is being loaded".to_owned());
        };
        let index = index as usize;
        find(&**buffers, index, (wanted, type_name))
            .and_then(|(buffer, len)| {
                view(buffer.segment, buffer.offset, len).ok_or_else(|| {
                    let name = buffers.name(index);
                    format!("buffer {name} does not lie in its segment whole and aligned")
                })
            })
            .inspect_err(|reason| *failure = Some(reason.clone()))
    })
}

/// Returns the buffer with this index, and its length in elements.
fn find<'a>(
    buffers: &'a dyn StoredBuffers,
    index: usize,
    (wanted, type_name): (Element, &str),
) -> Result<(StoredBuffer<'a>, usize), String> {
    if index >= buffers.count() {
        let count = buffers.count();
        return Err(format!("buffer {index} does not exist: the image has {count}"));
    }
    let buffer = buffers.get(index)?;
    let stored = buffer.element;
    if stored != wanted {
        return Err(format!(
            "buffer {} has elements {:?} of {} bytes, wanted are {:?} of {} bytes ({type_name})",
            buffers.name(index),
            stored.dtype,
            stored.size,
            wanted.dtype,
            wanted.size,
        ));
    }
    match buffer.bytes.checked_div(wanted.size) {
        Some(len) if len * wanted.size == buffer.bytes => Ok((buffer, len)),
        _ => Err(format!(
            "buffer {} has {} bytes, which are no whole elements of {} bytes",
            buffers.name(index),
            buffer.bytes,
            wanted.size
        )),
    }
}
