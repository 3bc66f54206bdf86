//! Buffers of a model that lie in segments already when it is shared: they stay where they are, and the image tells
//! where that is. So a model can be built shared, with no copy ever.
//!
//! Where they are (descriptors, names) means something only while their owner lives, and to a process that trusts it:
//! an image from a file never leads anywhere else.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::scope::{Part, Stored};
use crate::error::LoadError;
use crate::segment::{Segment, SegmentHandle};

/// Below this many bytes a copy costs less than a mapping in each process.
const WORTH_A_MAPPING: usize = 64 << 10;

/// Whether an image's word on other segments is followed.
#[derive(Debug, Clone)]
pub(super) enum Outside {
    /// By its maker, whose image keeps them alive, and by who attached what its maker told it.
    Followed { _kept: Vec<Segment> },
    /// It came from a file or from unknown bytes.
    Refused,
}

/// A buffer in another segment.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    handle: SegmentHandle,
    offset: usize,
    bytes: usize,
    dtype: Dtype,
}

/// Those buffers of one model, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Places {
    /// Notes where `part` is and gives its segment, if it can stay there.
    pub(super) fn note(&mut self, name: &str, part: &Part) -> Option<Segment> {
        let segment = part
            .bytes
            .segment()
            .filter(|_| part.bytes.len() >= WORTH_A_MAPPING)?;
        // Who is only attached can't tell others where it is.
        let handle = segment.handle().ok()?;
        let place = Place {
            handle,
            offset: part.bytes.as_ptr().addr() - segment.as_ptr().addr(),
            bytes: part.bytes.len(),
            dtype: part.element.dtype,
        };
        self.0.insert(name.to_owned(), place);
        Some(segment.clone())
    }

    /// As it is written; `None` if there is none.
    pub(super) fn encode(&self) -> Result<Option<String>, String> {
        match self.0.is_empty() {
            true => Ok(None),
            false => serde_json::to_string(self).map(Some).map_err(|e| e.to_string()),
        }
    }

    /// What an image says, if it may say so.
    pub(super) fn decode(said: Option<&str>, outside: &Outside) -> Result<Self, String> {
        match (said, outside) {
            (None, _) => Ok(Self::default()),
            (Some(_), Outside::Refused) => {
                Err("it has buffers in the memory of the process that made it".to_owned())
            }
            (Some(said), Outside::Followed { .. }) => serde_json::from_str(said)
                .map_err(|e| format!("what it says of buffers elsewhere can't be read: {e}")),
        }
    }

    /// Their bytes; each memory once.
    pub(super) fn bytes(&self) -> u64 {
        let places: Vec<&Place> = self.0.values().collect();
        let first = |(i, place): (usize, &&Place)| {
            let same = |other: &&Place| other.handle == place.handle && other.offset == place.offset;
            (!places[..i].iter().any(same)).then_some(place.bytes as u64)
        };
        places.iter().enumerate().filter_map(first).sum()
    }

    /// Attaches the segment of buffer `name`, unless it is one of `attached` already.
    pub(super) fn find(
        &self,
        name: &str,
        size: usize,
        attached: &mut Vec<(SegmentHandle, Segment)>,
    ) -> Result<Option<Stored>, LoadError> {
        let Some(place) = self.0.get(name) else {
            return Ok(None);
        };
        let known = attached.iter().find(|(handle, _)| *handle == place.handle);
        let home = match known {
            Some((_, segment)) => segment.clone(),
            None => {
                let segment = Segment::attach(&place.handle)?;
                attached.push((place.handle.clone(), segment.clone()));
                segment
            }
        };
        let len = place.bytes.checked_div(size);
        let len = len.filter(|len| len * size == place.bytes).ok_or_else(|| {
            LoadError::Format(format!("its buffer {name} has no whole elements of {size} bytes"))
        })?;
        Ok(Some(Stored {
            name: name.to_owned(),
            home: Some(home),
            element: (place.dtype, size),
            offset: place.offset,
            len,
        }))
    }
}
