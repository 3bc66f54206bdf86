//! [`Image`]: a model as one read-only segment.
//!
//! The bytes are a valid [`safetensors`] file (8 bytes of header length, a JSON header padded with spaces, then the
//! tensors without gaps): one tensor for each buffer, named after its field path, and a tensor `skeleton` with a table of the
//! buffers and the rest of the model. Of a model with very many buffers, the small ones share one tensor, `packed`. Each buffer
//! starts at a multiple of 64 bytes: see `header` and `table`.

use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::checksum;
use super::error::VerifyError;
use super::external_segments::ExternalPolicy;
use super::header::{self, MAX_HEADER};
use super::load_path::{Names, Tracked, Trail};
use super::memory::SharedFrom;
use super::options::LoadOptions;
use super::table::Table;
use super::version1;
use crate::buffer::Validated;
use crate::buffer::out_of_band::{self, LoadingError, StoredBuffers};
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
    /// Whether buffers in other segments are loaded.
    pub(super) external: ExternalPolicy,
    /// The longest header that is parsed, in bytes.
    pub(super) max_header: usize,
    /// The account of the model, if this process shared it.
    pub(super) shared_from: Option<Arc<SharedFrom>>,
}

impl Image {
    /// Attaches the image of another (or this) process.
    ///
    /// # Errors
    /// [`LoadError::Attach`] if its owner has exited or can't be reached, or if its file was replaced.
    pub fn attach(handle: &SegmentHandle) -> Result<Self, LoadError> {
        Ok(Self {
            segment: Segment::attach(handle)?,
            external: match handle.provenance {
                Provenance::Foreign => ExternalPolicy::Refuse,
                Provenance::Own => ExternalPolicy::Follow,
            },
            // Its owner has checked the length.
            max_header: MAX_HEADER,
            shared_from: None,
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
            external: ExternalPolicy::Refuse,
            max_header: options.header_limit(),
            shared_from: None,
        }
    }

    /// Returns a handle with which another process can [`attach`](Self::attach) the image, as long as a clone of the image
    /// lives in this process. The handle of an [opened](Self::open) file is valid, on systems other than Linux, as long as
    /// its path leads to the file. An attached image can be handed on: see [`Segment::handle`]. Its buffers in other segments
    /// are still those of the process that shared the model.
    ///
    /// [`descriptors::collect`](crate::descriptors::collect) finds the descriptors of those segments as well.
    ///
    /// # Errors
    /// If the system refuses to identify the memory.
    pub fn handle(&self) -> std::io::Result<SegmentHandle> {
        let handle = self.segment.handle()?;
        if matches!(self.external, ExternalPolicy::Refuse) {
            let provenance = Provenance::Foreign;
            return Ok(SegmentHandle { provenance, ..handle });
        }
        // Bytes that are not an image refer to no other segments.
        let others = self.table().and_then(|table| table.handles().ok());
        let others = others.into_iter().flatten().map(|other| other.locator);
        Ok(SegmentHandle {
            others: others.collect(),
            ..handle
        })
    }

    /// Returns the segment with the image: a valid safetensors file.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Returns the number of bytes of the model in shared memory: its image, and the buffers that stayed in other segments.
    pub fn byte_len(&self) -> u64 {
        // Bytes that are not an image refer to no other segments.
        let table = self
            .table()
            .filter(|_| !matches!(self.external, ExternalPolicy::Refuse));
        self.segment.len() as u64
            + table.map_or(0, |table| {
                table.external_bytes().iter().map(|(_, bytes)| bytes).sum()
            })
    }

    /// Rebuilds the model: decodes its skeleton, and makes its buffers views that keep the image alive. The time depends on
    /// the skeleton only: about 0.1 µs and 32 bytes for each buffer.
    ///
    /// The bytes are not trusted, but they are not compared with their checksum either: see [`verify`](Self::verify).
    ///
    /// # Errors
    /// If the bytes are not an image, or the image of another model.
    pub fn load<M: DeserializeOwned>(&self) -> Result<M, LoadError> {
        Ok(self.load_known(&Validated::default())?.0)
    }

    /// Loads a model of which some archives are known to be valid, and returns all that are.
    pub(super) fn load_known<M: DeserializeOwned>(
        &self,
        known: &Validated,
    ) -> Result<(M, Validated), LoadError> {
        let (buffers, model) = self.stored()?;
        let model = self.segment.get(model).unwrap_or_default();
        out_of_band::loading(buffers, known, || postcard::from_bytes(model)).map_err(|error| {
            LoadError::Decode {
                model: std::any::type_name::<M>(),
                reason: match error {
                    LoadingError::Buffer(reason) => reason,
                    LoadingError::Format(error) => self.decode_reason::<M>(error),
                },
            }
        })
    }

    /// Returns why the rest of the model can't be decoded, and where: decodes it once more, with paths.
    fn decode_reason<M: DeserializeOwned>(&self, error: postcard::Error) -> String {
        let trail = Trail::default();
        if let Ok((buffers, model)) = self.stored() {
            let mut inner = postcard::Deserializer::from_bytes(self.segment.get(model).unwrap_or_default());
            // It fails as the first time. Only the path is of interest.
            let _again = out_of_band::loading(buffers, &Validated::default(), || {
                M::deserialize(Tracked {
                    inner: &mut inner,
                    trail: &trail,
                    names: Names::Numbers,
                })
            });
        }
        let remedy = match error {
            postcard::Error::WontImplement => {
                "its type is known only from its bytes, which this format does not describe; remove `#[serde(untagged)]`, \
                 `#[serde(tag)]` or `#[serde(flatten)]` from the type, or store the value as bytes (as JSON, for example) in a \
                 `Buffer<u8>`"
                    .to_owned()
            }
            error => error.to_string(),
        };
        match trail.failed() {
            Some(path) => format!("`{path}`: {remedy}"),
            None => remedy,
        }
    }

    /// Returns the buffers, and the range of the rest of the model.
    fn stored(&self) -> Result<(Box<dyn StoredBuffers>, Range<usize>), LoadError> {
        if header::has_table(&self.segment) {
            let table = Table::read(&self.segment, self.max_header)?;
            let model = table.model.clone();
            return Ok((Box::new(table.attach(&self.external)?), model));
        }
        let (buffers, model) = version1::read(&self.segment, self.max_header)?;
        Ok((Box::new(buffers), model))
    }

    /// Returns the table of the buffers, if the bytes are an image with a valid one.
    pub(super) fn table(&self) -> Option<Table> {
        let has_table = header::has_table(&self.segment);
        has_table.then(|| Table::read(&self.segment, self.max_header).ok())?
    }

    /// Returns the longest header that is parsed, in bytes.
    pub(crate) fn max_header(&self) -> usize {
        self.max_header
    }

    /// Reads all of the image and returns the checksum of its bytes, which identifies the image on any machine: that of the image in
    /// memory and that of the file which it was saved to are the same, also of a compressed one. Not of an image whose buffers
    /// lie in other segments: it refers to them by names, which differ each time. [`fingerprint`](crate::fingerprint) hashes the
    /// contents of a model instead, wherever its buffers are.
    ///
    /// ```
    /// use shm_buffers::{Backing, Buffer, Image, share};
    ///
    /// let image = share(&Buffer::from(vec![0.5; 1000]), &Backing::Auto)?;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.safetensors");
    /// image.save(&path)?;
    /// assert_eq!(Image::load_shared(&path, &Backing::Auto)?.checksum(), image.checksum());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checksum(&self) -> u64 {
        checksum::of(&self.segment)
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
