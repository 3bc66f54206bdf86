//! [`share`] and [`share_move`]: write a model into a segment, as an [`Image`].

use std::cmp::Reverse;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;

use super::external_segments::{ExternalBuffers, ExternalPolicy};
use super::header::{self, MAX_HEADER};
use super::image::Image;
use super::names::{Names, SKELETON};
use super::path::WithPaths;
use crate::backing::Backing;
use crate::buffer::MAX_ALIGN;
use crate::buffer::element::Element;
use crate::buffer::memory::{BufferMemory, MemoryRange};
use crate::buffer::out_of_band::{self, Part, StoredBuffer};
use crate::copy;
use crate::model::error::ShareError;
use crate::os::{self, MoveSource};
use crate::segment::SegmentMut;

/// A buffer of a model, and its name in the image.
struct NamedPart {
    name: String,
    part: Part,
}

/// Which buffers are copied into an image.
#[derive(Clone, Copy, PartialEq)]
enum Gather {
    /// Those on the heap. Buffers in other segments stay there.
    Heap,
    /// All of them.
    Everything,
}

/// Copies `model` into shared memory, once and in parallel.
///
/// A buffer that lies in a segment already (one that was built with [`BufferMut`](crate::BufferMut), for example) is not
/// copied unless it is small: the image refers to its segment and keeps it alive. A model of such buffers is shared without
/// any copy.
///
/// Buffers are stored out of band, each memory once; everything else is serialized. Caches inside a model
/// (`OnceLock`, `Mutex`) are serialized like any field, and each process gets its own.
///
/// # Errors
/// If the model can't be serialized (postcard does not support `#[serde(flatten)]`, `untagged` and
/// `skip_serializing_if`), or does not fit into memory.
pub fn share<M: Serialize + ?Sized>(model: &M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, parts) = serialize(model)?;
    write(&skeleton, parts, backing, Gather::Heap)
}

/// Moves `model` into shared memory: its pages are released while they are copied, also within one buffer, so
/// that the peak is about the model's size plus a window of at most 32 MiB.
///
/// The memory limits only have to leave anonymous memory for the window and for what is not released (a buffer with other
/// clones is copied and stays for them). Named memory and files are reserved as a whole first, so they need memory or disk
/// space for the whole model.
///
/// # Errors
/// As [`share`]. The model is dropped in any case.
pub fn share_move<M: Serialize>(model: M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, parts) = serialize(&model)?;
    // From here on, `parts` has the only references to buffers without other clones.
    drop(model);
    write(&skeleton, parts, backing, Gather::Heap)
}

/// Returns the skeleton of a model and its buffers.
fn serialize<M: Serialize + ?Sized>(model: &M) -> Result<(Vec<u8>, Vec<NamedPart>), ShareError> {
    let encode = |e: postcard::Error| ShareError::Encode(e.to_string());
    let (model, parts) = out_of_band::sharing(|| postcard::to_stdvec(&WithPaths(model))).map_err(encode)?;
    let parts = name_parts(parts);
    let table = parts.iter().map(|it| (&*it.name, it.part.element.size as u64));
    let table = postcard::to_stdvec(&table.collect::<Vec<_>>()).map_err(encode)?;
    Ok(([table, model].concat(), parts))
}

/// Assigns each buffer a unique name: its path, or its index if it has no path.
fn name_parts(parts: Vec<(Part, Option<String>)>) -> Vec<NamedPart> {
    let mut names = Names::default();
    let named: Vec<Option<String>> = parts
        .iter()
        .map(|(_, path)| path.as_deref().map(|path| names.unique(path)))
        .collect();
    let parts = parts.into_iter().zip(named).enumerate();
    parts
        .map(|(index, ((part, _), name))| NamedPart {
            name: name.unwrap_or_else(|| names.unique(&format!("buffer.{index}"))),
            part,
        })
        .collect()
}

/// Writes an image.
fn write(
    skeleton: &[u8],
    parts: Vec<NamedPart>,
    backing: &Backing,
    gather: Gather,
) -> Result<Image, ShareError> {
    let (mut external, mut segments) = (ExternalBuffers::default(), Vec::new());
    let mut copied = Vec::with_capacity(parts.len());
    for it in parts {
        let segment = match gather {
            Gather::Everything => None,
            Gather::Heap => external.add(&it.name, &it.part),
        };
        match segment {
            Some(segment) => segments.push(segment),
            None => copied.push(it),
        }
    }
    // By decreasing alignment, then in the order of the model: see the documentation of `image`.
    copied.sort_by_key(|it| Reverse(it.part.element.align));

    let mut tensors = Vec::with_capacity(copied.len() + 1);
    let mut end = 0;
    let mut add = |name: String, dtype, shape, bytes: usize| {
        let data_offsets = (end, end + bytes);
        end += bytes;
        let info = TensorInfo {
            dtype,
            shape,
            data_offsets,
        };
        tensors.push((name, info));
    };
    let mut sources = Vec::with_capacity(copied.len());
    for NamedPart { name, part } in copied {
        let Part { element, bytes } = part;
        let len = bytes.len() / element.size;
        let shape = match element.is_struct() {
            true => vec![len, element.size],
            false => vec![len],
        };
        add(name, element.dtype, shape, bytes.len());
        sources.push(PartBytes::of(bytes));
    }
    let skeleton_shape = vec![skeleton.len()];
    add(SKELETON.to_owned(), Dtype::U8, skeleton_shape, skeleton.len());
    let external = external.encode().map_err(ShareError::Layout)?;
    let header = header::write(&tensors, external.as_deref()).map_err(ShareError::Layout)?;

    let mut releasable = || {
        let exclusive = sources.iter_mut().filter_map(PartBytes::exclusive);
        os::releasable(&mut exclusive.map(|bytes| &*bytes))
    };
    let mut source = MoveSource {
        window: copy::move_window(end),
        releasable: &mut releasable,
    };
    let mut segment = SegmentMut::create_for_move(backing, header.len() + end, &mut source)?;
    segment[..header.len()].copy_from_slice(&header);
    let mut at = header.len();
    for mut source in sources {
        at += match &mut source {
            PartBytes::Shared(bytes) => {
                segment.copy_at(at, bytes);
                bytes.len()
            }
            PartBytes::Exclusive(_) => {
                let bytes = source.exclusive().unwrap_or_default();
                let len = bytes.len();
                segment.move_at(at, bytes);
                len
            }
        };
    }
    segment[at..].copy_from_slice(skeleton);
    Ok(Image {
        segment: segment.freeze()?,
        file: None,
        external: ExternalPolicy::Follow { _segments: segments },
        max_header: MAX_HEADER,
    })
}

/// The bytes of a buffer that is written into an image.
enum PartBytes {
    /// Heap memory without other references: its pages are released.
    Exclusive(Arc<dyn BufferMemory>),
    /// Memory that stays.
    Shared(MemoryRange),
}

impl PartBytes {
    fn of(bytes: MemoryRange) -> Self {
        match bytes.into_exclusive() {
            Ok(memory) => Self::Exclusive(memory),
            Err(shared) => Self::Shared(shared),
        }
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Exclusive(memory) => Arc::get_mut(memory)?.exclusive(),
            Self::Shared(_) => None,
        }
    }
}

impl Image {
    /// Returns the image with all its buffers in it, as a file needs it: the image itself, unless some buffers lie in other
    /// segments.
    ///
    /// # Errors
    /// As [`load`](Self::load) and, for the copy, [`share`].
    pub(super) fn gathered(
        &self,
        backing: &Backing,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // Bytes that are not an image refer to no other segments.
        let header = match header::read(&self.segment, self.max_header) {
            Ok(header) if header.external().is_some() => header,
            _ => return Ok(self.clone()),
        };
        let skeleton = self.segment.get(header.skeleton()?);
        let skeleton = skeleton.ok_or("its skeleton lies outside of the image")?;
        let (table, _) = postcard::take_from_bytes::<Vec<(String, u64)>>(skeleton)?;
        let buffers = self.buffers(&header, table)?;
        let parts: Option<Vec<NamedPart>> = buffers.into_iter().map(|it| self.part(it)).collect();
        let parts = parts.ok_or("a buffer does not lie in its segment")?;
        Ok(write(skeleton, parts, backing, Gather::Everything)?)
    }

    /// Returns a buffer of this image as a part of a new one.
    fn part(&self, buffer: StoredBuffer) -> Option<NamedPart> {
        let (dtype, size) = buffer.element;
        let segment = buffer.segment.as_ref().unwrap_or(&self.segment);
        let element = Element {
            dtype,
            size,
            // The size of a type is a multiple of its alignment.
            align: (1 << size.trailing_zeros().min(MAX_ALIGN.trailing_zeros())),
        };
        let end = buffer.offset.checked_add(buffer.len * size)?;
        let bytes = segment.get(buffer.offset..end)?;
        Some(NamedPart {
            name: buffer.name,
            part: Part {
                element,
                bytes: MemoryRange::new(Arc::new(segment.clone()), bytes),
            },
        })
    }
}
