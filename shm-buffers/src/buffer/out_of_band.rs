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
use crate::segment::Segment;

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

/// A buffer of an image that is being loaded.
pub(crate) struct StoredBuffer {
    pub(crate) name: String,
    /// The segment with the elements, if that is not the image's.
    pub(crate) segment: Option<Segment>,
    /// Type and size of the elements.
    pub(crate) element: (Dtype, usize),
    /// Bytes from the start of the segment.
    pub(crate) offset: usize,
    /// The number of elements.
    pub(crate) len: usize,
}

/// The buffers that a model has handed over so far, each with its field path once that is known.
#[derive(Default)]
struct Collected {
    parts: Vec<(Part, Option<String>)>,
    known: HashMap<Identity, usize>,
}

enum Scope {
    Sharing(Collected),
    /// `failure` is why a buffer was not found. Formats such as postcard drop the message of a custom error.
    Loading {
        segment: Segment,
        buffers: Vec<StoredBuffer>,
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

/// Returns whether `index` is the buffer that was handed over last, and has no path yet.
pub(crate) fn needs_path(index: u32) -> bool {
    SCOPES.with_borrow(|scopes| match scopes.last() {
        Some(Scope::Sharing(collected)) => {
            let last = collected.parts.last();
            index as usize + 1 == collected.parts.len() && last.is_some_and(|(_, path)| path.is_none())
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

/// Runs `deserialize`, during which buffers become views of `segment`, or of their own segments.
pub(crate) fn loading<R, E: ToString>(
    segment: &Segment,
    buffers: Vec<StoredBuffer>,
    deserialize: impl FnOnce() -> Result<R, E>,
) -> Result<R, String> {
    let scope = Scope::Loading {
        segment: segment.clone(),
        buffers,
        failure: None,
    };
    SCOPES.with_borrow_mut(|scopes| scopes.push(scope));
    let _pop = PopScope;
    deserialize().map_err(|error| {
        SCOPES.with_borrow_mut(|scopes| match scopes.last_mut() {
            Some(Scope::Loading {
                failure: Some(failure),
                ..
            }) => mem::take(failure),
            _ => error.to_string(),
        })
    })
}

/// Hands over a buffer and returns its index, or `None` if no model is being shared. A buffer that occurs twice has one index.
pub(super) fn hand_over(part: impl FnOnce() -> Part) -> Option<Result<u32, &'static str>> {
    SCOPES.with_borrow_mut(|scopes| {
        let Some(Scope::Sharing(collected)) = scopes.last_mut() else {
            return None;
        };
        let part = part();
        let index = *collected.known.entry(part.identity()).or_insert_with(|| {
            collected.parts.push((part, None));
            collected.parts.len() - 1
        });
        Some(u32::try_from(index).map_err(|_| "a model can have 4294967296 buffers at most"))
    })
}

/// Returns whether a model is being loaded.
pub(super) fn is_loading() -> bool {
    SCOPES.with_borrow(|scopes| matches!(scopes.last(), Some(Scope::Loading { .. })))
}

/// Takes back the buffer with this index: calls `view` with its segment, its offset in bytes and its length in elements, if
/// its elements are of the wanted type.
pub(super) fn take_back<R>(
    index: u32,
    (wanted, type_name): (Element, &str),
    view: impl FnOnce(&Segment, usize, usize) -> Option<R>,
) -> Result<R, String> {
    SCOPES.with_borrow_mut(|scopes| {
        let Some(Scope::Loading {
            segment,
            buffers,
            failure,
        }) = scopes.last_mut()
        else {
            return Err("no image is being loaded".to_owned());
        };
        find(buffers, index, (wanted, type_name))
            .and_then(|buffer| {
                let segment = buffer.segment.as_ref().unwrap_or(segment);
                view(segment, buffer.offset, buffer.len).ok_or_else(|| {
                    format!(
                        "buffer {} does not lie in the image whole and aligned",
                        buffer.name
                    )
                })
            })
            .inspect_err(|reason| *failure = Some(reason.clone()))
    })
}

fn find<'a>(
    buffers: &'a [StoredBuffer],
    index: u32,
    (wanted, type_name): (Element, &str),
) -> Result<&'a StoredBuffer, String> {
    let buffer = buffers
        .get(index as usize)
        .ok_or_else(|| format!("buffer {index} does not exist: the image has {}", buffers.len()))?;
    if buffer.element != (wanted.dtype, wanted.size) {
        let (dtype, size) = buffer.element;
        return Err(format!(
            "buffer {} has elements {dtype:?} of {size} bytes, wanted are {:?} of {} bytes ({type_name})",
            buffer.name, wanted.dtype, wanted.size,
        ));
    }
    Ok(buffer)
}
