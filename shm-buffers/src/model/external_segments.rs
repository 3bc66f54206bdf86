//! Buffers of a model that already lie in segments when the model is shared: they stay there, and the image refers to
//! them. A model can be built shared this way, without any copy.
//!
//! The references are descriptors and names. They are valid only while their owner lives, and only for a process that trusts
//! the owner: an image from a file never refers to other segments.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::buffer::out_of_band::{Part, StoredBuffer};
use crate::model::error::LoadError;
use crate::segment::{Segment, SegmentHandle};

/// Below this many bytes, a copy costs less than a mapping in each process.
const MIN_MAPPED: usize = 64 << 10;

/// Whether the references of an image to other segments are followed.
#[derive(Debug, Clone)]
pub(super) enum ExternalPolicy {
    /// The image was made by this process, which keeps the segments alive, or was attached from the process that made it.
    Follow { _segments: Vec<Segment> },
    /// The image came from a file, or from unknown bytes.
    Refuse,
}

/// A buffer in another segment.
#[derive(Debug, Serialize, Deserialize)]
struct ExternalBuffer {
    handle: SegmentHandle,
    offset: usize,
    bytes: usize,
    dtype: Dtype,
}

/// The buffers of one model that lie in other segments, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ExternalBuffers(BTreeMap<String, ExternalBuffer>);

impl ExternalBuffers {
    /// Adds a buffer and returns its segment, if it can stay there.
    pub(super) fn add(&mut self, name: &str, part: &Part) -> Option<Segment> {
        let segment = part.bytes.segment().filter(|_| part.bytes.len() >= MIN_MAPPED)?;
        // An attached segment has no handle for other processes.
        let handle = segment.handle().ok()?;
        let buffer = ExternalBuffer {
            handle,
            offset: part.bytes.as_ptr().addr() - segment.as_ptr().addr(),
            bytes: part.bytes.len(),
            dtype: part.element.dtype,
        };
        self.0.insert(name.to_owned(), buffer);
        Some(segment.clone())
    }

    /// Returns the entry for the header's metadata, or `None` if all buffers are in the image.
    pub(super) fn encode(&self) -> Result<Option<String>, String> {
        match self.0.is_empty() {
            true => Ok(None),
            false => serde_json::to_string(self).map(Some).map_err(|e| e.to_string()),
        }
    }

    /// Decodes the entry of a header's metadata, if the policy allows one.
    pub(super) fn decode(entry: Option<&str>, policy: &ExternalPolicy) -> Result<Self, String> {
        match (entry, policy) {
            (None, _) => Ok(Self::default()),
            (Some(_), ExternalPolicy::Refuse) => {
                Err("it has buffers in the memory of the process that made it".to_owned())
            }
            (Some(entry), ExternalPolicy::Follow { .. }) => serde_json::from_str(entry)
                .map_err(|e| format!("its references to other segments can't be read: {e}")),
        }
    }

    /// Returns the number of bytes of the buffers. Memory that several buffers share counts once.
    pub(super) fn byte_len(&self) -> u64 {
        let buffers: Vec<&ExternalBuffer> = self.0.values().collect();
        let first = |(i, buffer): (usize, &&ExternalBuffer)| {
            let same =
                |other: &&ExternalBuffer| other.handle == buffer.handle && other.offset == buffer.offset;
            (!buffers[..i].iter().any(same)).then_some(buffer.bytes as u64)
        };
        buffers.iter().enumerate().filter_map(first).sum()
    }

    /// Returns the position of the buffer `name` with elements of `size` bytes, if it is one of these. Its segment is attached,
    /// unless it is in `attached` already.
    pub(super) fn find(
        &self,
        name: &str,
        size: usize,
        attached: &mut Vec<(SegmentHandle, Segment)>,
    ) -> Result<Option<StoredBuffer>, LoadError> {
        let Some(buffer) = self.0.get(name) else {
            return Ok(None);
        };
        let known = attached.iter().find(|(handle, _)| *handle == buffer.handle);
        let segment = match known {
            Some((_, segment)) => segment.clone(),
            None => {
                let segment = Segment::attach(&buffer.handle)?;
                attached.push((buffer.handle.clone(), segment.clone()));
                segment
            }
        };
        let len = buffer.bytes.checked_div(size);
        let len = len.filter(|len| len * size == buffer.bytes).ok_or_else(|| {
            LoadError::Format(format!("its buffer {name} has no whole elements of {size} bytes"))
        })?;
        Ok(Some(StoredBuffer {
            name: name.to_owned(),
            segment: Some(segment),
            element: (buffer.dtype, size),
            offset: buffer.offset,
            len,
        }))
    }
}
