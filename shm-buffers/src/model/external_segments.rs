//! Buffers of a model that already lie in segments when the model is shared: they stay there, and the image refers to
//! them. A model can be built shared this way, without any copy.
//!
//! The references are descriptors and names. They are valid only while their owner lives, and only for a process that trusts
//! the owner: an image from a file never refers to other segments.

use std::collections::HashMap;
use std::io;

use super::table::Table;
use crate::backing::BackingKind;
use crate::buffer::out_of_band::Part;
use crate::segment::{Segment, SegmentHandle};

/// Below this many bytes of buffers in one segment, a copy costs less than a mapping in each process.
const MIN_MAPPED: usize = 64 << 10;

/// Whether the references of an image to other segments are followed.
#[derive(Debug, Clone)]
pub(super) enum ExternalPolicy {
    /// This process made the image. It keeps the segments alive.
    Own(Vec<Segment>),
    /// The image was attached from the process that made it.
    Follow,
    /// The image came from a file, or from unknown bytes.
    Refuse,
}

impl ExternalPolicy {
    /// Returns the kinds of memory of the other segments, by their numbers from 1 on. Those that are refused have none.
    pub(super) fn backings(&self, table: &Table) -> Vec<BackingKind> {
        match self {
            Self::Own(segments) => {
                // Each is attached, opened or created; a handle knows where attached memory is.
                let kind = |it: &Segment| it.backing().or_else(|| Some(it.handle().ok()?.backing()));
                segments.iter().filter_map(kind).collect()
            }
            Self::Follow => {
                let handles = table.handles().unwrap_or_default();
                handles.iter().map(SegmentHandle::backing).collect()
            }
            Self::Refuse => Vec::new(),
        }
    }
}

/// The segments whose buffers stay where they are.
#[derive(Debug, Default)]
pub(super) struct ExternalSegments {
    /// The number of each segment, from 1 on, or `None` for a segment whose buffers are copied, by its identity.
    numbers: HashMap<usize, Option<u32>>,
    pub(super) segments: Vec<Segment>,
    pub(super) handles: Vec<SegmentHandle>,
}

impl ExternalSegments {
    /// Returns the segments of these buffers, unless only little of a segment is used.
    ///
    /// # Errors
    /// If the system refuses a handle of a segment.
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Part>) -> io::Result<Self> {
        let mut used: HashMap<usize, usize> = HashMap::new();
        let mut found: Vec<&Segment> = Vec::new();
        for part in parts {
            if let Some(segment) = part.bytes.segment() {
                let bytes = used.entry(segment.identity()).or_insert_with(|| {
                    found.push(segment);
                    0
                });
                *bytes = bytes.saturating_add(part.bytes.len());
            }
        }
        let mut external = Self::default();
        for segment in found {
            let identity = segment.identity();
            let stays = used.get(&identity).is_some_and(|bytes| *bytes >= MIN_MAPPED);
            let number = match stays {
                true => {
                    external.handles.push(segment.handle()?);
                    external.segments.push(segment.clone());
                    Some(external.segments.len() as u32)
                }
                false => None,
            };
            external.numbers.insert(identity, number);
        }
        Ok(external)
    }

    /// Returns the number of the segment that a buffer stays in, or `None` if the buffer is copied.
    pub(super) fn number(&self, part: &Part) -> Option<u32> {
        let segment = part.bytes.segment()?;
        self.numbers.get(&segment.identity()).copied().flatten()
    }
}
