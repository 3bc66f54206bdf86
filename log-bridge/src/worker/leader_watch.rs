//! Whether the leader still reads the ring.

use std::io;

use shm_buffers::{AttachError, Region, RegionHandle};

use crate::wire::link::Link;

/// Looks for the leader's end.
#[derive(Debug)]
pub(super) struct LeaderWatch {
    link: Link,
    /// The leader's memory, if the worker has connected by a handle.
    region: Option<RegionHandle>,
}

impl LeaderWatch {
    pub(super) fn new(link: Link, region: Option<RegionHandle>) -> Self {
        Self { link, region }
    }

    /// Returns whether the leader has removed the source, or has ended. A leader that was killed is seen only by its memory:
    /// this process must have connected by a handle, and without a descriptor that was passed to it.
    pub(super) fn has_ended(&self) -> bool {
        self.link.is_closed() || self.region.as_ref().is_some_and(is_gone)
    }
}

/// Returns whether the memory has no owner any more. An owner that cannot be reached for another reason may be alive.
fn is_gone(region: &RegionHandle) -> bool {
    match Region::attach(region) {
        Err(AttachError::Unreachable { source, .. }) => source.kind() == io::ErrorKind::NotFound,
        Err(AttachError::Replaced { .. }) => true,
        _ => false,
    }
}
