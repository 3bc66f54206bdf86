//! [`share`] and [`share_move`]: write a model into a segment, as an [`Image`].

use std::sync::Arc;

use safetensors::Dtype;
use serde::Serialize;

use super::account::Account;
use super::external_segments::{ExternalPolicy, ExternalSegments};
use super::header::{self, MAX_HEADER};
use super::image::Image;
use super::layout::{self, Layout, Packing};
use super::memory::SharedFrom;
use super::names::{Names, PACKED, SKELETON};
use super::path::WithPaths;
use super::table::{Table, TableWriter};
use crate::backing::Backing;
use crate::buffer::memory::{HeapMemory, Memory, MemoryRange};
use crate::buffer::out_of_band::{self, Part, StoredBuffer, StoredBuffers};
use crate::copy;
use crate::model::error::ShareError;
use crate::os::{self, MoveSource};
use crate::segment::SegmentMut;

/// A buffer of a model, and its field path, if it needs a name.
type PathPart = (Part, Option<String>);

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
/// A buffer that lies in a segment already is not copied: one that was built with [`BufferMut`](crate::BufferMut), a tensor of a
/// mapped file, or a buffer of an attached model. The image refers to its segment and keeps it alive. A model of such buffers is
/// shared without any copy. Only if the model uses less than 64 KiB of a segment, these are copied: mapping the segment in each
/// process would cost more.
///
/// Buffers are stored out of band, each memory once; everything else is serialized, and each process that loads the model
/// rebuilds it: [`Image::memory`] returns how much that is. Caches inside a model
/// (`OnceLock`, `Mutex`) are serialized like any field, and each process gets its own.
///
/// # Errors
/// [`ShareError::Encode`] names the field that can't be serialized, for example because of `#[serde(flatten)]` or
/// `skip_serializing_if`. (`untagged` is refused when the model is loaded.) The others are errors of memory.
pub fn share<M: Serialize + ?Sized>(model: &M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, parts, account) = serialize(model)?;
    write(&skeleton, parts, backing, Gather::Heap).map(|image| image.with_account(&account))
}

/// Moves `model` into shared memory: its pages are released while they are copied, also within one buffer, so
/// that the peak is about the model's size plus a window of at most 32 MiB.
///
/// The memory limits only have to leave anonymous memory for the window and for what is not released (a buffer with other
/// clones is copied and stays for them). Named memory and files are reserved as a whole first, so they need memory or disk
/// space for the whole model.
///
/// The allocator keeps the memory of many small allocations for this process when they are freed. After a move of 16 MiB or more it
/// is returned to the system on Linux with glibc (`malloc_trim`, which also returns what was freed before); elsewhere
/// [`ModelMemory::unreturned`](crate::ModelMemory::unreturned) is how much may be left.
///
/// # Errors
/// As [`share`]. The model is dropped in any case.
pub fn share_move<M: Serialize>(model: M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, parts, account) = serialize(&model)?;
    // From here on, `parts` has the only references to buffers without other clones.
    drop(model);
    // Buffers of large allocations were returned to the system page by page.
    let small = parts.iter().filter(|(part, _)| part.bytes.segment().is_none());
    let small = small.map(|(part, _)| part.bytes.len() as u64);
    let small: u64 = small.filter(|len| *len < MIN_OWN_MAPPING).sum();
    let image = write(&skeleton, parts, backing, Gather::Heap)?.with_account(&account);
    drop(skeleton);
    Ok(image.give_back(small))
}

/// Allocators map requests of this many bytes separately, and return each mapping to the system when it is freed.
const MIN_OWN_MAPPING: u64 = 128 << 10;
/// Fewer moved bytes are not worth the time of going through the heap.
const MIN_GIVEN_BACK: u64 = 16 << 20;

/// Returns the skeleton of a model, its buffers, and the account of the rest.
fn serialize<M: Serialize + ?Sized>(model: &M) -> Result<(Vec<u8>, Vec<PathPart>, Account), ShareError> {
    let account = Account::default();
    let with_paths = WithPaths {
        model,
        account: &account,
    };
    let serialized = out_of_band::sharing(|| postcard::to_stdvec(&with_paths));
    match serialized {
        Ok((skeleton, parts)) => Ok((skeleton, parts, account)),
        Err(error) => Err(encode_error(&account, error)),
    }
}

/// Returns why, and where, a model was not serialized.
pub(super) fn encode_error(account: &Account, error: postcard::Error) -> ShareError {
    let failure = account.take_failure().unwrap_or_default();
    let reason = failure.reason.unwrap_or_else(|| {
        format!(
            "its `Serialize` implementation failed ({error}); `serde_json::to_string` shows its own message"
        )
    });
    ShareError::Encode {
        path: failure.path,
        type_name: failure.type_name,
        reason,
    }
}

/// Where a buffer is in an image.
enum Place {
    /// It stays in another segment, the one with this number.
    External(u32),
    /// It is a tensor at this offset.
    Tensor(usize),
    /// It is at this offset of the tensor with many buffers.
    Packed(usize),
}

/// Writes an image. `model` is everything but the buffers.
fn write(model: &[u8], parts: Vec<PathPart>, backing: &Backing, gather: Gather) -> Result<Image, ShareError> {
    let external = match gather {
        Gather::Everything => ExternalSegments::default(),
        Gather::Heap => {
            ExternalSegments::of(parts.iter().map(|(part, _)| part)).map_err(ShareError::Handle)?
        }
    };
    let least = layout::least_tensor(parts.iter().map(|(part, _)| part.bytes.len()));
    let (mut names, mut layout, mut packing) = (Names::default(), Layout::default(), Packing::default());
    let mut named = Vec::new();
    // Bytes that are in a segment already.
    let mut copied = 0;
    let mut places = Vec::with_capacity(parts.len());
    for (index, (Part { element, bytes }, path)) in parts.iter().enumerate() {
        let external = external.number(&parts[index].0);
        if external.is_none() && bytes.segment().is_some() {
            copied += bytes.len() as u64;
        }
        let is_named = bytes.len() >= least;
        let name = is_named.then(|| layout::name(&mut names, index, path.as_deref()));
        places.push(match (external, &name) {
            (Some(number), _) => Place::External(number),
            (None, Some(name)) => {
                let len = bytes.len() / element.size;
                let shape = match element.is_struct() {
                    true => vec![len, element.size],
                    false => vec![len],
                };
                Place::Tensor(layout.add(name.clone(), element.dtype, shape, bytes.len()))
            }
            (None, None) => Place::Packed(packing.add(bytes.len())),
        });
        named.push(name);
    }
    let packed = match packing.len() {
        0 => 0,
        len => layout.add(PACKED.to_owned(), Dtype::U8, vec![len], len),
    };

    let mut table = TableWriter::with_capacity(parts.len());
    let (mut tensors, mut small) = (Vec::new(), Vec::new());
    for (((part, _), place), name) in parts.into_iter().zip(places).zip(named) {
        let Part { element, bytes } = part;
        let len = bytes.len();
        let (segment, offset) = match place {
            Place::External(number) => (number, bytes.offset()),
            Place::Tensor(offset) => {
                tensors.push((offset, PartBytes::of(bytes)));
                (0, offset)
            }
            Place::Packed(offset) => {
                small.push((packed + offset, bytes));
                (0, packed + offset)
            }
        };
        table.push(element, segment, offset, len);
        if let Some(name) = name {
            table.name(name);
        }
    }
    let skeleton = table
        .finish(&external.handles, model)
        .map_err(ShareError::Layout)?;
    let skeleton_at = layout.add(
        SKELETON.to_owned(),
        Dtype::U8,
        vec![skeleton.len()],
        skeleton.len(),
    );
    let header = header::write(&layout.tensors).map_err(ShareError::Layout)?;
    let len = header.len() + layout.end;
    let skeleton = skeleton.with_footer(&header, len);

    let mut releasable = || {
        let exclusive = tensors.iter_mut().filter_map(|(_, bytes)| bytes.exclusive());
        os::releasable(&mut exclusive.map(|bytes| &*bytes))
    };
    let mut source = MoveSource {
        window: copy::move_window(layout.end),
        releasable: &mut releasable,
    };
    let mut segment = SegmentMut::create_for_move(backing, len, &mut source)?;
    segment[..header.len()].copy_from_slice(&header);
    for (offset, mut source) in tensors {
        let at = header.len() + offset;
        match &mut source {
            PartBytes::Shared(bytes) => segment.copy_at(at, bytes),
            PartBytes::Exclusive(_) => segment.move_at(at, source.exclusive().unwrap_or_default()),
        }
    }
    copy_small(&mut segment, header.len(), small);
    segment.copy_at(header.len() + skeleton_at, &skeleton);
    Ok(Image {
        segment: segment.freeze()?,
        external: ExternalPolicy::Own(external.segments),
        max_header: MAX_HEADER,
        shared_from: Some(Arc::new(SharedFrom {
            copied,
            ..SharedFrom::default()
        })),
    })
}

/// Copies small buffers to their offsets from `start`, in increasing order, many at a time. Each is dropped once it is copied.
fn copy_small(segment: &mut SegmentMut, start: usize, buffers: Vec<(usize, MemoryRange)>) {
    const WINDOW: usize = 1 << 20;
    let mut window = Vec::new();
    let mut at = 0;
    for (offset, bytes) in buffers {
        if window.len() >= WINDOW {
            segment.copy_at(start + at, &window);
            window.clear();
        }
        if window.is_empty() {
            at = offset;
        }
        window.resize(offset - at, 0);
        window.extend_from_slice(&bytes);
    }
    segment.copy_at(start + at, &window);
}

/// The bytes of a buffer that is written into an image.
enum PartBytes {
    /// Heap memory without other references: its pages are released.
    Exclusive(Arc<dyn HeapMemory>),
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
    /// Adds what each process rebuilds.
    fn with_account(self, account: &Account) -> Self {
        let (per_process, fields) = account.totals();
        let copied = self.shared_from.as_ref().map_or(0, |known| known.copied);
        let shared_from = Some(Arc::new(SharedFrom {
            copied,
            per_process,
            fields,
            unreturned: 0,
        }));
        Self { shared_from, ..self }
    }

    /// Returns what the moved model has left on the heap to the system. `small` is how much its small buffers were.
    ///
    /// This is done here, where the model was dropped: no caller knows when its memory is free, and a copy frees nothing.
    fn give_back(mut self, small: u64) -> Self {
        if let Some(known) = self.shared_from.as_mut().and_then(Arc::get_mut) {
            let freed = small.saturating_add(known.per_process);
            let is_worth = freed.saturating_add(self.segment.len() as u64) >= MIN_GIVEN_BACK;
            known.unreturned = match is_worth && os::return_freed_memory() {
                true => 0,
                false => freed,
            };
        }
        self
    }

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
        let Some(table) = self.table().filter(Table::is_external) else {
            return Ok(self.clone());
        };
        let model = self.segment.get(table.model.clone()).unwrap_or_default();
        let mut names = table.names().into_iter().peekable();
        let buffers = table.attach(&self.external)?;
        let part = |index| {
            let name = names.next_if(|(named, _)| *named as usize == index);
            let StoredBuffer {
                segment,
                element,
                offset,
                bytes,
            } = buffers.get(index)?;
            let bytes = offset.checked_add(bytes).and_then(|end| segment.get(offset..end));
            let bytes = bytes.ok_or_else(|| format!("buffer {index} does not lie in its segment"))?;
            let bytes = MemoryRange::new(Memory::Segment(segment.clone()), bytes);
            Ok((Part { element, bytes }, name.map(|(_, name)| name)))
        };
        let parts: Result<Vec<PathPart>, String> = (0..buffers.count()).map(part).collect();
        Ok(write(model, parts?, backing, Gather::Everything)?)
    }
}
