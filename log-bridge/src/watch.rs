//! A worker's watch for another filter from its leader.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use shm_buffers::slots::Slots;

use crate::filter::Filter;
use crate::layer::Shared;
use crate::pushed::Receiver;

/// Brings the leader's [other filter](crate::Collector::set_filter) into force in a worker.
///
/// A disabled event costs a level check because `tracing` remembers for each callsite that nobody wants it; so
/// somebody has to tell it when that changes. [`install`](crate::WorkerLayerBuilder::install) has a thread for that;
/// who builds the layer himself calls [`refresh`](Self::refresh) now and then.
pub struct Watch {
    shared: Weak<Shared>,
    receiver: Receiver,
    log: SetsLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetsLog {
    No,
    #[cfg(feature = "log")]
    Yes,
}

impl Watch {
    pub(crate) fn new(shared: &Arc<Shared>, slots: &Slots) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            receiver: Receiver::new(slots),
            log: SetsLog::No,
        }
    }

    /// The maximum level of the `log` crate follows, too.
    #[cfg(feature = "log")]
    pub(crate) fn with_log(self) -> Self {
        Self {
            log: SetsLog::Yes,
            ..self
        }
    }

    /// Takes over the filter that the leader has set since the last call, and gives it if there is one. It is in force
    /// for all events that begin after this; events of other threads at this very time may pass either.
    ///
    /// It also tells what [`Overflow::Batch`](crate::Overflow::Batch) has collapsed, if there is room.
    pub fn refresh(&mut self) -> Option<Filter> {
        let shared = self.shared.upgrade()?;
        shared.outlet.tell_repeats();
        let filter = self.receiver.take()?;
        *shared.filter.write().unwrap_or_else(PoisonError::into_inner) = filter.clone();
        tracing_core::callsite::rebuild_interest_cache();
        match self.log {
            SetsLog::No => {}
            #[cfg(feature = "log")]
            SetsLog::Yes => {
                tracing_log::log::set_max_level(tracing_log::AsLog::as_log(&filter.max_event_level()))
            }
        }
        Some(filter)
    }

    /// Refreshes every `interval` until the layer is gone.
    pub(crate) fn spawn(mut self, interval: Duration) -> io::Result<()> {
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

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}
