//! [`Image`]: a model as one read-only segment.
//!
//! The bytes are a valid [`safetensors`] file (8 bytes of header length, a JSON header padded with spaces, then the
//! tensors without gaps): one tensor for each buffer, named after its field path, and a tensor `skeleton` with the buffers'
//! names and the rest of the model, encoded with postcard. Tensors are sorted by decreasing alignment and start at a
//! multiple of 64 bytes, so that each of them is aligned.

use serde::de::DeserializeOwned;

use super::checksum;
use super::error::VerifyError;
use super::external_segments::{ExternalBuffers, ExternalPolicy};
use super::header::{self, Header, MAX_HEADER};
use super::options::LoadOptions;
use crate::backing::BackingKind;
use crate::buffer::out_of_band::{self, StoredBuffer};
use crate::model::error::LoadError;
use crate::segment::{Provenance, Segment, SegmentHandle};

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
/// image.save(&path)?; // NumPy and PyTorch read this file as well
/// let loaded: Model = Image::load_shared(&path, &Backing::Auto)?.load()?;
/// assert_eq!(loaded.weights, theirs.weights);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Image {
    pub(super) segment: Segment,
    /// The handle of an attached file, which can be passed on.
    pub(super) file: Option<SegmentHandle>,
    /// Whether buffers in other segments are loaded.
    pub(super) external: ExternalPolicy,
    /// The longest header that is parsed, in bytes.
    pub(super) max_header: usize,
}

impl Image {
    /// Attaches the image of another (or this) process.
    ///
    /// # Errors
    /// [`LoadError::Attach`] if its owner has exited or can't be reached, or if its file was replaced.
    pub fn attach(handle: &SegmentHandle) -> Result<Self, LoadError> {
        let foreign = handle.provenance == Provenance::Foreign;
        let file = foreign && handle.backing() == BackingKind::File;
        Ok(Self {
            segment: Segment::attach(handle)?,
            external: match handle.provenance {
                Provenance::Foreign => ExternalPolicy::Refuse,
                Provenance::Own => ExternalPolicy::Follow {
                    _segments: Vec::new(),
                },
            },
            file: file.then(|| handle.clone()),
            // Its owner has checked the length.
            max_header: MAX_HEADER,
        })
    }

    /// Creates an image from a segment that holds its bytes. They are checked when they are used.
    pub fn from_segment(segment: Segment) -> Self {
        Self::from_segment_with(segment, &LoadOptions::new())
    }

    /// Like [`from_segment`](Self::from_segment), with another limit for the header.
    pub fn from_segment_with(segment: Segment, options: &LoadOptions) -> Self {
        Self {
            segment,
            file: None,
            external: ExternalPolicy::Refuse,
            max_header: options.header_limit(),
        }
    }

    /// Returns a handle with which another process can [`attach`](Self::attach) the image, as long as a clone of the image
    /// lives in this process. The handle of an [opened](Self::open) file is valid, on systems other than Linux, as long as
    /// its path leads to the file.
    ///
    /// # Errors
    /// If the image is attached and not a file.
    pub fn handle(&self) -> std::io::Result<SegmentHandle> {
        if let Some(handle) = &self.file {
            return Ok(handle.clone());
        }
        let provenance = match self.external {
            ExternalPolicy::Follow { .. } => Provenance::Own,
            ExternalPolicy::Refuse => Provenance::Foreign,
        };
        Ok(SegmentHandle {
            provenance,
            ..self.segment.handle()?
        })
    }

    /// Returns the segment with the image: a valid safetensors file.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Returns the number of bytes of the model in shared memory: its image, and the buffers that stayed in other segments.
    pub fn byte_len(&self) -> u64 {
        // Bytes that are not an image refer to no other segments.
        let header = header::read(&self.segment, self.max_header).ok();
        let external = header.and_then(|header| self.external_buffers(&header).ok());
        self.segment.len() as u64 + external.map_or(0, |external| external.byte_len())
    }

    /// Rebuilds the model: decodes its skeleton, and makes its buffers views that keep the image alive. The time depends on
    /// the skeleton only.
    ///
    /// The bytes are not trusted, but they are not compared with their checksum either: see [`verify`](Self::verify).
    ///
    /// # Errors
    /// If the bytes are not an image, or the image of another model.
    pub fn load<M: DeserializeOwned>(&self) -> Result<M, LoadError> {
        let format = LoadError::Format;
        let header = header::read(&self.segment, self.max_header)?;
        let skeleton = self.segment.get(header.skeleton().map_err(format)?);
        let skeleton = skeleton.ok_or_else(|| format("its skeleton lies outside of the image".to_owned()))?;
        let (table, skeleton) = postcard::take_from_bytes::<Vec<(String, u64)>>(skeleton)
            .map_err(|e| format(format!("its table of buffers can't be read: {e}")))?;
        let buffers = self.buffers(&header, table)?;
        out_of_band::loading(&self.segment, buffers, || postcard::from_bytes(skeleton)).map_err(|reason| {
            LoadError::Decode {
                model: std::any::type_name::<M>(),
                reason,
            }
        })
    }

    /// Returns the positions of the image's buffers, in the order of their indices. `table` has the name and the bytes per
    /// element of each.
    pub(super) fn buffers(
        &self,
        header: &Header,
        table: Vec<(String, u64)>,
    ) -> Result<Vec<StoredBuffer>, LoadError> {
        let external = self.external_buffers(header).map_err(LoadError::Format)?;
        let mut attached = Vec::new();
        let buffer = |(name, size): (String, u64)| {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            match external.find(&name, size, &mut attached)? {
                Some(buffer) => Ok(buffer),
                None => stored(header, name, size).map_err(LoadError::Format),
            }
        };
        table.into_iter().map(buffer).collect()
    }

    /// Returns the longest header that is parsed, in bytes.
    pub(crate) fn max_header(&self) -> usize {
        self.max_header
    }

    fn external_buffers(&self, header: &Header) -> Result<ExternalBuffers, String> {
        ExternalBuffers::decode(header.external(), &self.external)
    }

    /// Reads all of the image and compares it with the checksum that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`VerifyError::Mismatch`] if a byte has changed since the image was saved, [`VerifyError::NoChecksum`] if the image was
    /// never saved, or was saved by another program.
    pub fn verify(&self) -> Result<(), VerifyError> {
        header::read(&self.segment, self.max_header).map_err(|e| VerifyError::Format(e.to_string()))?;
        checksum::compare(&self.segment, || checksum::of(&self.segment))
    }
}

/// Returns the position of the buffer `name` with elements of `size` bytes. The tensor's shape is for other readers and
/// does not matter here.
fn stored(header: &Header, name: String, size: usize) -> Result<StoredBuffer, String> {
    let Some(info) = header.metadata.info(&name) else {
        return Err(format!("its buffer {name} is missing"));
    };
    let (start, end) = info.data_offsets;
    let len = match (end - start).checked_div(size) {
        Some(len) if len * size == end - start => len,
        _ => return Err(format!("its buffer {name} has no whole elements of {size} bytes")),
    };
    Ok(StoredBuffer {
        name,
        segment: None,
        element: (info.dtype, size),
        // Tensors lie inside of the file: see `header::read`.
        offset: header.data + start,
        len,
    })
}
