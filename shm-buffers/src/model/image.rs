//! [`Image`]: a model as one read-only segment.
//!
//! The bytes are a valid [`safetensors`] file (format: 8 bytes of header length, a JSON header padded with spaces,
//! the tensors without gaps): one tensor for each buffer, and one, [`SKELETON`], with the model's small rest,
//! encoded with postcard. Tensors are sorted by falling alignment and start 64-aligned, so that each is aligned.

use std::collections::HashMap;
use std::sync::Arc;

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::copy;
use super::scope::{self, Part, Stored};
use crate::backing::Backing;
use crate::buffer::MAX_ALIGN;
use crate::error::{LoadError, ShareError};
use crate::segment::{Segment, SegmentHandle, SegmentMut};

/// The tensor that holds what is no buffer.
const SKELETON: &str = "skeleton";
/// The layout's version, in the header's metadata.
const FORMAT: (&str, &str) = ("shm-buffers", "1");
/// What holds the header's length.
const PREFIX: usize = 8;

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
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Image {
    segment: Segment,
}

/// Copies `model` into shared memory: one copy, in parallel.
///
/// Buffers are stored out-of-band, each memory once; everything else is serialized. Caches inside a model
/// (`OnceLock`, `Mutex`) are serialized like any field, and each process has its own afterwards.
///
/// # Errors
/// When the model can't be serialized (postcard's limits: no `#[serde(flatten)]`, `untagged` or
/// `skip_serializing_if`), or there is no room.
pub fn share<M: Serialize + ?Sized>(model: &M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, parts) = serialize(model)?;
    write(skeleton, parts, backing)
}

/// Moves `model` into shared memory: its pages are given back while they are copied, also inside one buffer, so
/// that the peak is about the model's size plus a window of 32 MiB.
///
/// A buffer that somebody else holds a clone of is copied and stays whole for him.
///
/// # Errors
/// As [`share`]. The model is gone then, too.
pub fn share_move<M: Serialize>(model: M, backing: &Backing) -> Result<Image, ShareError> {
    let (skeleton, parts) = serialize(&model)?;
    // From here on, `parts` holds the only references to buffers that nobody else shares.
    drop(model);
    write(skeleton, parts, backing)
}

fn serialize<M: Serialize + ?Sized>(model: &M) -> Result<(Vec<u8>, Vec<Part>), ShareError> {
    scope::sharing(|| postcard::to_stdvec(model)).map_err(|e| ShareError::Encode(e.to_string()))
}

fn write(skeleton: Vec<u8>, mut parts: Vec<Part>, backing: &Backing) -> Result<Image, ShareError> {
    // Falling alignment, then the order of the model: see the module's documentation.
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(parts[i].element.align));

    let mut tensors = Vec::with_capacity(parts.len() + 1);
    let mut offset = 0;
    for &i in &order {
        let part = &parts[i];
        let (element, bytes) = (part.element, part.bytes.len());
        let shape = match element.is_struct() {
            true => vec![bytes / element.size, element.size],
            false => vec![bytes / element.size],
        };
        let end = offset + bytes;
        tensors.push((
            name(i),
            TensorInfo {
                dtype: element.dtype,
                shape,
                data_offsets: (offset, end),
            },
        ));
        offset = end;
    }
    let end = offset + skeleton.len();
    let info = TensorInfo {
        dtype: Dtype::U8,
        shape: vec![skeleton.len()],
        data_offsets: (offset, end),
    };
    tensors.push((SKELETON.to_owned(), info));

    let layout = |e: &dyn std::fmt::Display| ShareError::Layout(e.to_string());
    let metadata = HashMap::from([(FORMAT.0.to_owned(), FORMAT.1.to_owned())]);
    let metadata = Metadata::new(Some(metadata), tensors).map_err(|e| layout(&e))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| layout(&e))?;
    header.resize((PREFIX + header.len()).next_multiple_of(MAX_ALIGN) - PREFIX, b' ');

    let mut segment = SegmentMut::create(backing, PREFIX + header.len() + end)?;
    let (prefix, rest) = segment.split_at_mut(PREFIX);
    prefix.copy_from_slice(&(header.len() as u64).to_le_bytes());
    let (head, mut rest) = rest.split_at_mut(header.len());
    head.copy_from_slice(&header);
    for part in order.into_iter().map(|i| std::mem::take(&mut parts[i].bytes)) {
        let (target, behind) = rest.split_at_mut(part.len());
        rest = behind;
        match part.into_exclusive() {
            Ok(mut last) => {
                if let Some(source) = Arc::get_mut(&mut last).and_then(|block| block.exclusive()) {
                    copy::moving(target, source);
                }
            }
            Err(shared) => copy::parallel(target, &shared),
        }
    }
    rest.copy_from_slice(&skeleton);
    Ok(Image {
        segment: segment.freeze()?,
    })
}

fn name(index: usize) -> String {
    format!("buffer.{index}")
}

impl Image {
    /// The image of another (or this) process.
    ///
    /// # Errors
    /// [`LoadError::Attach`] when its owner has gone or can't be reached.
    pub fn attach(handle: &SegmentHandle) -> Result<Self, LoadError> {
        Ok(Self {
            segment: Segment::attach(handle)?,
        })
    }

    /// What another process needs to [`attach`](Self::attach), as long as a clone of this image lives here.
    ///
    /// # Errors
    /// An attached image has no handle.
    pub fn handle(&self) -> std::io::Result<SegmentHandle> {
        self.segment.handle()
    }

    /// The memory that holds it: a valid safetensors file.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Rebuilds the model: its skeleton is decoded, its buffers are views that keep the image alive. Takes time for
    /// the skeleton only.
    ///
    /// # Errors
    /// When the bytes are no image, or the image of another model.
    pub fn load<M: DeserializeOwned>(&self) -> Result<M, LoadError> {
        let format = |reason: String| LoadError::Format(reason);
        let (header_len, metadata) =
            SafeTensors::read_metadata(&self.segment).map_err(|e| format(e.to_string()))?;
        let version = metadata.metadata().as_ref().and_then(|m| m.get(FORMAT.0));
        if version.map(String::as_str) != Some(FORMAT.1) {
            return Err(format(format!(
                "its header names no {} format {}",
                FORMAT.0, FORMAT.1
            )));
        }
        // `read_metadata` has checked that the tensors fill the bytes behind the header exactly.
        let data = PREFIX + header_len;
        let mut parts = Vec::new();
        while let Some(info) = metadata.info(&name(parts.len())) {
            let (start, end) = info.data_offsets;
            let row: usize = match info.shape.as_slice() {
                [_] => info.dtype.bitsize() / 8,
                [_, row] if info.dtype == Dtype::U8 => *row,
                shape => return Err(format(format!("buffer {} has shape {shape:?}", parts.len()))),
            };
            parts.push(Stored {
                element: (info.dtype, row),
                offset: data + start,
                len: (end - start).checked_div(row).unwrap_or(0),
            });
        }
        let skeleton = metadata
            .info(SKELETON)
            .ok_or_else(|| format("it has no skeleton".to_owned()))?;
        let (start, end) = skeleton.data_offsets;
        let skeleton = self.segment.get(data + start..data + end);
        let skeleton = skeleton.ok_or_else(|| format("its skeleton lies outside".to_owned()))?;
        scope::loading(&self.segment, parts, || postcard::from_bytes(skeleton)).map_err(|reason| {
            LoadError::Decode {
                model: std::any::type_name::<M>(),
                reason,
            }
        })
    }
}
