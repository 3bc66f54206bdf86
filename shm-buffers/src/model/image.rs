//! [`Image`]: a model as one read-only segment.
//!
//! The bytes are a valid [`safetensors`] file (format: 8 bytes of header length, a JSON header padded with spaces,
//! the tensors without gaps): one tensor for each buffer, named after its field path, and one, `skeleton`, with the
//! buffers' names and the model's small rest, encoded with postcard. Tensors are sorted by falling alignment and
//! start 64-aligned, so that each is aligned.

use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checksum;
use super::header::{self, Header, MAX_HEADER};
use super::names::SKELETON;
use super::options::LoadOptions;
use super::outside::{Outside, Places};
use super::path::Named;
use super::scope::{self, Block, Element, HandedOut, Part, Stored};
use crate::backing::{Backing, BackingKind};
use crate::buffer::{Buffer, MAX_ALIGN};
use crate::copy;
use crate::error::{LoadError, ShareError};
use crate::model::error::VerifyError;
use crate::os::{self, Moved};
use crate::segment::{Content, Segment, SegmentHandle, SegmentMut};
use crate::tensors::Tensors;

/// A model in shared memory: one copy for any number of threads and processes.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use serde::{Deserialize, Serialize};
/// use shm_buffers::{Backing, Buffer, Image, share_move};
///
/// #[derive(Serialize, Deserialize)]
/// struct Model {
///     name: String,
///     weights: Buffer<f64>,
/// }
///
/// let model = Model { name: "mean".into(), weights: vec![0.5; 1000].into() };
/// let image = share_move(model, &Backing::Auto)?;
///
/// let handle = image.handle()?; // goes to another process, which does
/// let theirs: Model = Image::attach(&handle)?.load()?;
/// assert_eq!((&*theirs.name, theirs.weights[999]), ("mean", 0.5));
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("mean.safetensors");
/// image.save(&path)?; // a file that NumPy and PyTorch read, too
/// let loaded: Model = Image::load_shared(&path, &Backing::Auto)?.load()?;
/// assert_eq!(loaded.weights, theirs.weights);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Image {
    pub(super) segment: Segment,
    /// For an attached file, whose handle can be handed on.
    pub(super) file: Option<SegmentHandle>,
    /// Buffers in other segments.
    pub(super) outside: Outside,
    /// The longest header that is parsed.
    pub(super) max_header: usize,
}

/// What happens to buffers that lie in a segment already.
#[derive(Clone, Copy, PartialEq)]
enum Gather {
    /// They stay there.
    Heap,
    /// They are copied into the image as all others.
    Everything,
}

/// Copies `model` into shared memory: one copy, in parallel.
///
/// A buffer that lies in a segment already (built by [`BufferMut`](crate::BufferMut), say) is not copied, unless it is small:
/// the image tells where it is and keeps its segment alive. A model built so is shared without any copy.
///
/// Buffers are stored out-of-band, each memory once; everything else is serialized. Caches inside a model
/// (`OnceLock`, `Mutex`) are serialized like any field, and each process has its own afterwards.
///
/// # Errors
/// When the model can't be serialized (postcard's limits: no `#[serde(flatten)]`, `untagged` or
/// `skip_serializing_if`), or there is no room.
pub fn share<M: Serialize + ?Sized>(model: &M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, buffers) = serialize(model)?;
    write(skeleton, buffers, backing, Gather::Heap)
}

/// Moves `model` into shared memory: its pages are given back while they are copied, also inside one buffer, so
/// that the peak is about the model's size plus a window of at most 32 MiB.
///
/// Anonymous memory is admitted by that: the limits have to leave room for the window and for what does not come back
/// (a buffer that has other clones is copied and stays whole for them). Named memory and files are reserved as a whole
/// first, so they need room for all of it.
///
/// # Errors
/// As [`share`]. The model is gone then, too.
pub fn share_move<M: Serialize>(model: M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, buffers) = serialize(&model)?;
    // From here on, `buffers` holds the only references to buffers that nobody else shares.
    drop(model);
    write(skeleton, buffers, backing, Gather::Heap)
}

fn serialize<M: Serialize + ?Sized>(model: &M) -> Result<(Vec<u8>, HandedOut), ShareError> {
    let encode = |e: postcard::Error| ShareError::Encode(e.to_string());
    let (model, buffers) = scope::sharing(|| postcard::to_stdvec(&Named(model))).map_err(encode)?;
    let sizes = buffers.parts.iter().map(|part| part.element.size as u64);
    let table: Vec<(&str, u64)> = buffers.paths.iter().map(String::as_str).zip(sizes).collect();
    let table = postcard::to_stdvec(&table).map_err(encode)?;
    Ok(([table, model].concat(), buffers))
}

fn write(
    skeleton: Vec<u8>,
    buffers: HandedOut,
    backing: &Backing,
    gather: Gather,
) -> Result<Image, ShareError> {
    let HandedOut { mut parts, paths, .. } = buffers;
    let (mut places, mut outside) = (Places::default(), Vec::new());
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.retain(|&i| match gather {
        Gather::Everything => true,
        Gather::Heap => match places.note(&paths[i], &parts[i]) {
            Some(segment) => {
                outside.push(segment);
                false
            }
            None => true,
        },
    });
    // Falling alignment, then the order of the model: see the module's documentation.
    order.sort_by_key(|&i| std::cmp::Reverse(parts[i].element.align));

    let mut tensors = Vec::with_capacity(parts.len() + 1);
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
    for &i in &order {
        let (element, bytes) = (parts[i].element, parts[i].bytes.len());
        let shape = match element.is_struct() {
            true => vec![bytes / element.size, element.size],
            false => vec![bytes / element.size],
        };
        add(paths[i].clone(), element.dtype, shape, bytes);
    }
    add(
        SKELETON.to_owned(),
        Dtype::U8,
        vec![skeleton.len()],
        skeleton.len(),
    );
    let places = places.encode().map_err(ShareError::Layout)?;
    let header = header::write(&tensors, places.as_deref()).map_err(ShareError::Layout)?;

    let mut sources: Vec<Source> = order
        .into_iter()
        .map(|i| Source::of(std::mem::take(&mut parts[i].bytes)))
        .collect();
    let mut comes_back = || {
        os::releasable(
            &mut sources
                .iter_mut()
                .filter_map(Source::exclusive)
                .map(|bytes| &*bytes),
        )
    };
    let mut moved = Moved {
        window: copy::moving_window(end),
        comes_back: &mut comes_back,
    };
    let mut segment = SegmentMut::create_for(backing, header.len() + end, Some(&mut moved))?;
    segment[..header.len()].copy_from_slice(&header);
    let mut at = header.len();
    for mut source in sources {
        at += match &mut source {
            Source::Shared(bytes) => {
                segment.copy_at(at, bytes);
                bytes.len()
            }
            Source::Exclusive(_) => {
                let bytes = source.exclusive().unwrap_or_default();
                let len = bytes.len();
                segment.move_at(at, bytes);
                len
            }
        };
    }
    segment[at..].copy_from_slice(&skeleton);
    Ok(Image {
        segment: segment.freeze()?,
        file: None,
        outside: Outside::Followed { _kept: outside },
        max_header: MAX_HEADER,
    })
}

/// The bytes of a buffer that is written into an image.
enum Source {
    /// Heap memory that nothing else refers to: its pages are given back.
    Exclusive(Arc<dyn Block>),
    /// Memory that stays.
    Shared(Buffer<u8>),
}

impl Source {
    fn of(bytes: Buffer<u8>) -> Self {
        match bytes.into_exclusive() {
            Ok(block) => Self::Exclusive(block),
            Err(shared) => Self::Shared(shared),
        }
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Exclusive(block) => Arc::get_mut(block)?.exclusive(),
            Self::Shared(_) => None,
        }
    }
}

impl Image {
    /// The image of another (or this) process.
    ///
    /// # Errors
    /// [`LoadError::Attach`] when its owner has gone or can't be reached, or when its file was replaced.
    pub fn attach(handle: &SegmentHandle) -> Result<Self, LoadError> {
        let foreign = handle.content == Content::Foreign;
        let file = foreign && handle.backing() == BackingKind::File;
        Ok(Self {
            segment: Segment::attach(handle)?,
            outside: match handle.content {
                Content::Foreign => Outside::Refused,
                Content::Own => Outside::Followed { _kept: Vec::new() },
            },
            file: file.then(|| handle.clone()),
            // Its owner has judged it.
            max_header: MAX_HEADER,
        })
    }

    /// An image whose bytes are in a segment already. They are judged when they are used.
    pub fn from_segment(segment: Segment) -> Self {
        Self::from_segment_with(segment, &LoadOptions::new())
    }

    /// As [`from_segment`](Self::from_segment), with another limit for the header.
    pub fn from_segment_with(segment: Segment, options: &LoadOptions) -> Self {
        Self {
            segment,
            file: None,
            outside: Outside::Refused,
            max_header: options.header_limit(),
        }
    }

    /// What another process needs to [`attach`](Self::attach), as long as a clone of this image lives here; for an
    /// [opened](Self::open) file where the system is not Linux, as long as its path leads to it.
    ///
    /// # Errors
    /// An attached image has no handle, unless it is a file.
    pub fn handle(&self) -> std::io::Result<SegmentHandle> {
        if let Some(handle) = &self.file {
            return Ok(handle.clone());
        }
        let content = match self.outside {
            Outside::Followed { .. } => Content::Own,
            Outside::Refused => Content::Foreign,
        };
        Ok(SegmentHandle {
            content,
            ..self.segment.handle()?
        })
    }

    /// The memory that holds it: a valid safetensors file.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Bytes of the model in shared memory: its image, and the buffers that stayed where they had been built.
    pub fn bytes(&self) -> u64 {
        // What is no image has nothing elsewhere.
        let header = header::read(&self.segment, self.max_header).ok();
        let places = header.and_then(|header| Places::decode(header.outside(), &self.outside).ok());
        self.segment.len() as u64 + places.map_or(0, |places| places.bytes())
    }

    /// Rebuilds the model: its skeleton is decoded, its buffers are views that keep the image alive. Takes time for
    /// the skeleton only.
    ///
    /// Nothing that the bytes say is trusted, but they are not compared with their checksum either: see
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    /// When the bytes are no image, or the image of another model.
    pub fn load<M: DeserializeOwned>(&self) -> Result<M, LoadError> {
        let format = LoadError::Format;
        let header = header::read(&self.segment, self.max_header)?;
        let skeleton = self.segment.get(header.skeleton().map_err(format)?);
        let skeleton = skeleton.ok_or_else(|| format("its skeleton lies outside".to_owned()))?;
        let (table, skeleton) = postcard::take_from_bytes::<Vec<(String, u64)>>(skeleton)
            .map_err(|e| format(format!("its table of buffers can't be read: {e}")))?;
        let parts = self.parts(&header, table)?;
        scope::loading(&self.segment, parts, || postcard::from_bytes(skeleton)).map_err(|reason| {
            LoadError::Decode {
                model: std::any::type_name::<M>(),
                reason,
            }
        })
    }

    /// Where its buffers are, in their order.
    fn parts(&self, header: &Header, table: Vec<(String, u64)>) -> Result<Vec<Stored>, LoadError> {
        let places = Places::decode(header.outside(), &self.outside).map_err(LoadError::Format)?;
        let mut attached = Vec::new();
        let part = |(name, size): (String, u64)| {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            match places.find(&name, size, &mut attached)? {
                Some(part) => Ok(part),
                None => stored(header, name, size).map_err(LoadError::Format),
            }
        };
        table.into_iter().map(part).collect()
    }

    /// The same image with all its buffers in it, as a file has to be: itself, unless some lie elsewhere.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`share`]: it is a copy.
    pub(super) fn gathered(
        &self,
        backing: &Backing,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // What is no image has nothing elsewhere.
        let header = match header::read(&self.segment, self.max_header) {
            Ok(header) if header.outside().is_some() => header,
            _ => return Ok(self.clone()),
        };
        let skeleton = self.segment.get(header.skeleton()?);
        let skeleton = skeleton.ok_or("its skeleton lies outside")?;
        let (table, _) = postcard::take_from_bytes::<Vec<(String, u64)>>(skeleton)?;
        let stored = self.parts(&header, table)?;
        let part = |stored: &Stored| {
            let (dtype, size) = stored.element;
            let home = stored.home.as_ref().unwrap_or(&self.segment);
            let element = Element {
                dtype,
                size,
                // A size is a multiple of its alignment.
                align: (1 << size.trailing_zeros().min(MAX_ALIGN.trailing_zeros())),
            };
            let bytes = Buffer::view(home, stored.offset, stored.len * size);
            bytes.map(|bytes| Part { element, bytes })
        };
        let parts: Option<Vec<Part>> = stored.iter().map(part).collect();
        let parts = parts.ok_or("a buffer does not lie in its segment")?;
        let paths = stored.into_iter().map(|stored| stored.name).collect();
        let buffers = HandedOut::of(parts, paths);
        Ok(write(skeleton.to_vec(), buffers, backing, Gather::Everything)?)
    }

    /// Its buffers by name, and the skeleton, as any reader of the format sees them.
    ///
    /// # Errors
    /// [`LoadError::Format`] when the bytes are no safetensors file, [`LoadError::HeaderTooLarge`] when it has too many
    /// tensors.
    pub fn tensors(&self) -> Result<Tensors, LoadError> {
        Ok(Tensors::read(&self.segment, self.max_header)?)
    }

    /// Reads all of it and compares it with the checksum that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`VerifyError::Mismatch`] if a byte is not what was saved, [`VerifyError::NoChecksum`] if the image was never
    /// saved, or by another program.
    pub fn verify(&self) -> Result<(), VerifyError> {
        header::read(&self.segment, self.max_header).map_err(|e| VerifyError::Format(e.to_string()))?;
        checksum::compare(&self.segment, || checksum::of(&self.segment))
    }
}

/// Where the buffer `name` with elements of `size` bytes is. Its shape doesn't matter: that is for other readers.
fn stored(header: &Header, name: String, size: usize) -> Result<Stored, String> {
    let Some(info) = header.metadata.info(&name) else {
        return Err(format!("its buffer {name} is missing"));
    };
    let (start, end) = info.data_offsets;
    let len = match (end - start).checked_div(size) {
        Some(len) if len * size == end - start => len,
        _ => return Err(format!("its buffer {name} has no whole elements of {size} bytes")),
    };
    Ok(Stored {
        name,
        home: None,
        element: (info.dtype, size),
        // Tensors lie inside of the file: see `header::read`.
        offset: header.data + start,
        len,
    })
}
