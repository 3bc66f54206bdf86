//! Images of format 1, which earlier versions of this crate saved: their buffers are found by name in the header, and are
//! aligned for their elements only.

use std::ops::Range;

use super::error::LoadError;
use super::header;
use crate::buffer::element::Element;
use crate::buffer::out_of_band::{StoredBuffer, StoredBuffers};
use crate::segment::Segment;

/// The buffers of an image of format 1.
#[derive(Debug)]
pub(super) struct NamedBuffers {
    image: Segment,
    buffers: Vec<NamedBuffer>,
}

#[derive(Debug)]
struct NamedBuffer {
    name: String,
    element: Element,
    /// The range in the image.
    bytes: Range<usize>,
}

/// Returns the buffers of an image with a header of at most `limit` bytes, and the range of the rest of the model.
pub(super) fn read(image: &Segment, limit: usize) -> Result<(NamedBuffers, Range<usize>), LoadError> {
    let header = header::read(image, limit)?;
    let skeleton = header.skeleton().map_err(LoadError::Format)?;
    let format = |reason: String| LoadError::Format(reason);
    let bytes = image.get(skeleton.clone());
    let bytes = bytes.ok_or_else(|| format("its skeleton lies outside of the image".to_owned()))?;
    let (table, rest) = postcard::take_from_bytes::<Vec<(String, u64)>>(bytes)
        .map_err(|e| format(format!("its table of buffers can't be read: {e}")))?;
    let buffer = |(name, size): (String, u64)| {
        let Some(info) = header.metadata.info(&name) else {
            return Err(format(format!("its buffer {name} is missing")));
        };
        let (start, end) = info.data_offsets;
        Ok(NamedBuffer {
            name,
            element: Element {
                dtype: info.dtype,
                size: usize::try_from(size).unwrap_or(usize::MAX),
            },
            // Tensors lie inside of the file: see `header::read`.
            bytes: header.data + start..header.data + end,
        })
    };
    let buffers = NamedBuffers {
        image: image.clone(),
        buffers: table.into_iter().map(buffer).collect::<Result<_, _>>()?,
    };
    Ok((buffers, skeleton.end - rest.len()..skeleton.end))
}

impl StoredBuffers for NamedBuffers {
    fn count(&self) -> usize {
        self.buffers.len()
    }

    fn get(&self, index: usize) -> Result<StoredBuffer<'_>, String> {
        let buffer = self.buffers.get(index);
        let buffer = buffer.ok_or_else(|| format!("buffer {index} does not exist"))?;
        Ok(StoredBuffer {
            segment: &self.image,
            element: buffer.element,
            offset: buffer.bytes.start,
            bytes: buffer.bytes.len(),
        })
    }

    fn name(&self, index: usize) -> String {
        let buffer = self.buffers.get(index);
        buffer.map_or_else(|| index.to_string(), |buffer| buffer.name.clone())
    }
}
