//! Takes over the filters that the leader sends while the worker runs.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use shm_buffers::slots::Slots;

use super::shared::Shared;
use crate::filter::Filter;
use crate::filter::update::UpdateReceiver;

/// Applies the filters that the leader [sets](crate::Collector::set_filter) while the worker runs.
///
/// A disabled event costs a level check because `tracing` caches the interest of the subscribers in each callsite; when a
/// filter changes, that cache has to be rebuilt. [`install`](crate::WorkerLayerBuilder::install) starts a thread that does
/// it; a program that builds the layer itself calls [`refresh`](Self::refresh) from time to time.
pub struct FilterWatch {
    shared: Weak<Shared>,
    receiver: UpdateReceiver,
    log_crate: LogCrate,
}

/// Whether the maximum level of the `log` crate changes with the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogCrate {
    Unchanged,
    #[cfg(feature = "log")]
    Follows,
}

impl FilterWatch {
    pub(super) fn new(shared: &Arc<Shared>, slots: &Slots) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            receiver: UpdateReceiver::new(slots),
            log_crate: LogCrate::Unchanged,
        }
    }

    /// Changes the maximum level of the `log` crate with the filter.
    #[cfg(feature = "log")]
    pub(super) fn with_log(self) -> Self {
        Self {
            log_crate: LogCrate::Follows,
            ..self
        }
    }

    /// Applies the filter that the leader has set since the last call, and returns it; returns `None` if it has set none.
    ///
    /// The filter applies to every event that begins after this call; concurrent events of other threads may still use
    /// the old one. The call also writes the pending summaries of [`Overflow::Collapse`](crate::Overflow::Collapse), if the
    /// ring has room for them.
    pub fn refresh(&mut self) -> Option<Filter> {
        let shared = self.shared.upgrade()?;
        shared.writer.write_summaries();
        let filter = self.receiver.receive()?;
        shared.set_filter(filter.clone());
        tracing_core::callsite::rebuild_interest_cache();
        match self.log_crate {
            LogCrate::Unchanged => {}
            #[cfg(feature = "log")]
            LogCrate::Follows => {
                tracing_log::log::set_max_level(tracing_log::AsLog::as_log(&filter.max_event_level()))
            }
        }
        Some(filter)
    }

    /// Starts a thread that refreshes every `interval` until the layer is dropped.
    pub(super) fn spawn(mut self, interval: Duration) -> io::Result<()> {
        let watch = move || {
            while self.shared.strong_count() > 0 {
                self.refresh();
                thread::sleep(interval);
            }
        };
        thread::Builder::new()
            .name("log-bridge-watch".into())
            .spawn(watch)
            .map(drop)
    }
}

impl fmt::Debug for FilterWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterWatch")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}
