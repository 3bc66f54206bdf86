//! [`LoopRef`]: the event loop of a map's pool, borrowed or kept alive.

use std::ops::Deref;
use std::sync::Arc;

use crate::leader::event_loop::EventLoop;

/// The event loop of the map's pool.
pub(crate) enum LoopRef<'p> {
    Borrowed(&'p EventLoop),
    Owned(Arc<EventLoop>),
}

impl Deref for LoopRef<'_> {
    type Target = EventLoop;

    #[inline]
    fn deref(&self) -> &EventLoop {
        match self {
            Self::Borrowed(event_loop) => event_loop,
            Self::Owned(event_loop) => event_loop,
        }
    }
}

impl Drop for LoopRef<'_> {
    fn drop(&mut self) {
        if let Self::Owned(event_loop) = self
            && !event_loop.is_here()
        {
            // The drop of the copied event loop would touch resources of the leader.
            std::mem::forget(event_loop.clone());
        }
    }
}
