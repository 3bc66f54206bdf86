//! Copying buffers into a segment: in parallel, and releasing the source on the way.

pub(crate) use crate::copy::{moving, parallel};
