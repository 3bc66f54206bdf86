//! The scope of one share or load: how a [`Buffer`](crate::Buffer) deep inside a model hands its bytes out of
//! band, and finds them again.
//!
//! serde gives a `Serialize` implementation no place for such a thing, so it is a thread-local; it lives exactly
//! as long as one call of `share` or `load`, nests, and is gone after a panic.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::{self, Discriminant};

use bytemuck::Pod;

use super::names::Names;
use crate::buffer::Buffer;
use crate::segment::Segment;

/// Who owns the memory of a buffer.
pub(crate) trait Block: Send + Sync {
    /// The bytes, to be wiped, when they are this process's own heap memory. Reachable only through the last
    /// reference to the block.
    fn exclusive(&mut self) -> Option<&mut [u8]>;
}

/// One buffer of a model that is being shared.
pub(crate) struct Part {
    pub(crate) element: Element,
    pub(crate) bytes: Buffer<u8>,
}

/// Memory, and the elements that it is seen as.
type Identity = (usize, usize, Discriminant<safetensors::Dtype>, usize);

impl HandedOut {
    /// What a model of these parts would have handed out.
    pub(crate) fn of(parts: Vec<Part>, paths: Vec<String>) -> Self {
        Self {
            parts,
            paths,
            ..Self::default()
        }
    }
}

impl Part {
    fn identity(&self) -> Identity {
        let Element { dtype, size, .. } = self.element;
        let start = self.bytes.as_ptr() as usize;
        (start, self.bytes.len(), mem::discriminant(&dtype), size)
    }
}

/// What an image tells of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    /// The `safetensors` type; structs are rows of bytes.
    pub(crate) dtype: safetensors::Dtype,
    pub(crate) size: usize,
    pub(crate) align: usize,
}

impl Element {
    pub(crate) fn of<T: Pod>() -> Self {
        use safetensors::Dtype;
        let of = TypeId::of::<T>();
        let known = [
            (TypeId::of::<u8>(), Dtype::U8),
            (TypeId::of::<i8>(), Dtype::I8),
            (TypeId::of::<u16>(), Dtype::U16),
            (TypeId::of::<i16>(), Dtype::I16),
            (TypeId::of::<u32>(), Dtype::U32),
            (TypeId::of::<i32>(), Dtype::I32),
            (TypeId::of::<u64>(), Dtype::U64),
            (TypeId::of::<i64>(), Dtype::I64),
            (TypeId::of::<f32>(), Dtype::F32),
            (TypeId::of::<f64>(), Dtype::F64),
        ];
        let dtype = known
            .iter()
            .find(|(id, _)| *id == of)
            .map_or(Dtype::U8, |(_, dtype)| *dtype);
        Self {
            dtype,
            size: size_of::<T>(),
            align: align_of::<T>(),
        }
    }

    /// Bytes of one `dtype`: a struct's is 1, and its rows have `size` of them.
    pub(crate) fn is_struct(self) -> bool {
        self.dtype == safetensors::Dtype::U8 && self.size > 1
    }
}

/// One buffer of an image that is being loaded.
pub(crate) struct Stored {
    pub(crate) name: String,
    /// The segment that it lies in, if that is not the image's.
    pub(crate) home: Option<Segment>,
    pub(crate) element: (safetensors::Dtype, usize),
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// What the buffers of a model have handed out so far.
#[derive(Default)]
pub(crate) struct HandedOut {
    pub(crate) parts: Vec<Part>,
    /// One for each part; empty until it is known.
    pub(crate) paths: Vec<String>,
    names: Names,
    known: HashMap<Identity, usize>,
}

enum Scope {
    Sharing(HandedOut),
    /// `failure`: why a buffer was not found. Formats such as postcard forget the message of a custom error.
    Loading {
        segment: Segment,
        parts: Vec<Stored>,
        failure: Option<String>,
    },
}

thread_local! {
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

/// Pops its scope even when a model's own serde code panics.
struct Popped;

impl Drop for Popped {
    fn drop(&mut self) {
        SCOPES.with_borrow_mut(Vec::pop);
    }
}

/// Runs `serialize` with buffers handing out their bytes; gives what they handed out, each with a name.
pub(crate) fn sharing<R, E>(serialize: impl FnOnce() -> Result<R, E>) -> Result<(R, HandedOut), E> {
    SCOPES.with_borrow_mut(|scopes| scopes.push(Scope::Sharing(HandedOut::default())));
    let popped = Popped;
    let result = serialize()?;
    let mut out = SCOPES.with_borrow_mut(|scopes| match scopes.last_mut() {
        Some(Scope::Sharing(out)) => mem::take(out),
        _ => HandedOut::default(),
    });
    drop(popped);
    // Written by a serializer of the model's own, inside of some bytes or text.
    for (index, path) in out.paths.iter_mut().enumerate() {
        if path.is_empty() {
            *path = out.names.give(&format!("buffer.{index}"));
        }
    }
    Ok((result, out))
}

/// Whether the part `index` was just handed out and has no name yet.
pub(crate) fn awaits_name(index: u32) -> bool {
    SCOPES.with_borrow(|scopes| match scopes.last() {
        Some(Scope::Sharing(out)) => {
            index as usize + 1 == out.paths.len() && out.paths.last().is_some_and(String::is_empty)
        }
        _ => false,
    })
}

/// Names the part `index` after its path.
pub(crate) fn name(index: u32, path: &str) {
    SCOPES.with_borrow_mut(|scopes| {
        if let Some(Scope::Sharing(out)) = scopes.last_mut()
            && let Some(slot) = out.paths.get_mut(index as usize)
        {
            *slot = out.names.give(path);
        }
    });
}

/// Runs `deserialize` with buffers becoming views of `segment`.
pub(crate) fn loading<R, E: ToString>(
    segment: &Segment,
    parts: Vec<Stored>,
    deserialize: impl FnOnce() -> Result<R, E>,
) -> Result<R, String> {
    let scope = Scope::Loading {
        segment: segment.clone(),
        parts,
        failure: None,
    };
    SCOPES.with_borrow_mut(|scopes| scopes.push(scope));
    let _popped = Popped;
    deserialize().map_err(|error| {
        SCOPES.with_borrow_mut(|scopes| match scopes.last_mut() {
            Some(Scope::Loading {
                failure: Some(failure),
                ..
            }) => std::mem::take(failure),
            _ => error.to_string(),
        })
    })
}

/// The index under which a buffer was handed out; `None` outside a share. A buffer met twice is stored once.
pub(crate) fn hand_out(part: impl FnOnce() -> Part) -> Option<Result<u32, &'static str>> {
    SCOPES.with_borrow_mut(|scopes| {
        let Some(Scope::Sharing(out)) = scopes.last_mut() else {
            return None;
        };
        let part = part();
        let index = *out.known.entry(part.identity()).or_insert_with(|| {
            out.parts.push(part);
            out.paths.push(String::new());
            out.parts.len() - 1
        });
        Some(u32::try_from(index).map_err(|_| "a model can have 4294967296 buffers at most"))
    })
}

pub(crate) fn is_loading() -> bool {
    SCOPES.with_borrow(|scopes| matches!(scopes.last(), Some(Scope::Loading { .. })))
}

/// The buffer that was handed out as `index`.
pub(crate) fn take_in<T: Pod + Send + Sync>(index: u32) -> Result<Buffer<T>, String> {
    SCOPES.with_borrow_mut(|scopes| {
        let Some(Scope::Loading {
            segment,
            parts,
            failure,
        }) = scopes.last_mut()
        else {
            return Err("no image is being loaded".to_owned());
        };
        find(segment, parts, index).inspect_err(|reason| *failure = Some(reason.clone()))
    })
}

fn find<T: Pod + Send + Sync>(segment: &Segment, parts: &[Stored], index: u32) -> Result<Buffer<T>, String> {
    let part = parts
        .get(index as usize)
        .ok_or_else(|| format!("buffer {index} does not exist: the image has {}", parts.len()))?;
    let wanted = Element::of::<T>();
    if part.element != (wanted.dtype, wanted.size) {
        let (dtype, size) = part.element;
        return Err(format!(
            "buffer {} has elements {dtype:?} of {size} bytes, wanted are {:?} of {} bytes ({})",
            part.name,
            wanted.dtype,
            wanted.size,
            std::any::type_name::<T>()
        ));
    }
    let home = part.home.as_ref().unwrap_or(segment);
    Buffer::view(home, part.offset, part.len)
        .ok_or_else(|| format!("buffer {} does not lie in the image whole and aligned", part.name))
}
