//! The state that a layer shares with its [`FilterWatch`](super::filter_watch::FilterWatch) and its
//! [`WorkerGuard`](super::guard::WorkerGuard).

use std::sync::{PoisonError, RwLock};

use super::leader_watch::LeaderWatch;
use super::ring_writer::RingWriter;
use crate::filter::Filter;

pub(super) struct Shared {
    pub(super) writer: RingWriter,
    pub(super) leader: LeaderWatch,
    /// Not read for each event: `tracing` caches the interest in a callsite. `tracing::enabled!` reads it.
    filter: RwLock<Filter>,
}

impl Shared {
    pub(super) fn new(writer: RingWriter, leader: LeaderWatch, filter: Filter) -> Self {
        Self {
            writer,
            leader,
            filter: RwLock::new(filter),
        }
    }

    pub(super) fn with_filter<T>(&self, read: impl FnOnce(&Filter) -> T) -> T {
        read(&self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_filter(&self, filter: Filter) {
        *self.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
    }
}
