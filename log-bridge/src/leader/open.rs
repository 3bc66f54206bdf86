//! Opens sources: creates the memory that a worker in another process connects to.

use std::error::Error;
use std::fmt;
use std::io;

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;
use shm_buffers::{Backing, CreateError, Region};

use crate::filter::Filter;
use crate::source_handle::{MAX_FILTER_TEXT, SourceHandle};
use crate::wire::shared_memory::{MAX_RING, MIN_RING, SharedMemory};

const DEFAULT_RING: usize = 1 << 20;

/// Options for [`Collector::open_with`](crate::Collector::open_with).
///
/// ```
/// use log_bridge::{Collector, Filter, LevelFilter, SourceOptions};
///
/// let options = SourceOptions::new().ring_bytes(64 * 1024).filter(Filter::new(LevelFilter::WARN));
/// let source = Collector::new().open_with(7, options)?;
/// assert_eq!(source.ring_bytes(), 64 * 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SourceOptions {
    ring_bytes: usize,
    filter: Option<Filter>,
    backing: Backing,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl SourceOptions {
    /// Returns the options that [`Collector::open`](crate::Collector::open) uses.
    pub fn new() -> Self {
        Self {
            ring_bytes: DEFAULT_RING,
            filter: None,
            backing: Backing::Auto,
        }
    }

    /// Sets the size of the ring in bytes; default: 1 MiB. It is rounded up to a power of two, between 1 KiB and 1 GiB.
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Sets the filter that the worker starts with. The default is the collector's filter: the one that was
    /// [set](crate::Collector::set_filter) last or [followed](crate::Collector::follow_subscribers), else
    /// [`Filter::current`]. A filter that is set later replaces either.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Sets the kind of memory; default: [`Backing::Auto`].
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }
}

/// Why a source was not opened.
#[non_exhaustive]
pub enum OpenError {
    /// The shared memory was not created.
    Memory {
        /// The worker's id.
        id: u64,
        /// The reason.
        source: CreateError,
    },
    /// The shared memory has no handle.
    Handle {
        /// The worker's id.
        id: u64,
        /// The reason.
        source: io::Error,
    },
    /// The filter's text does not fit into the handle.
    FilterTooLong {
        /// The worker's id.
        id: u64,
        /// Bytes of the text.
        bytes: usize,
    },
    /// The collector's thread has stopped.
    Stopped {
        /// The worker's id.
        id: u64,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { id, .. } => write!(f, "cannot create the shared memory of log source {id}"),
            Self::Handle { id, .. } => {
                write!(f, "cannot make a handle of the shared memory of log source {id}")
            }
            Self::FilterTooLong { id, bytes } => write!(
                f,
                "cannot open log source {id}: its filter takes {bytes} bytes, at most {MAX_FILTER_TEXT} fit into a handle; name fewer targets"
            ),
            Self::Stopped { id } => write!(f, "cannot open log source {id}: the log collector has stopped"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Memory { source, .. } => Some(source),
            Self::Handle { source, .. } => Some(source),
            Self::FilterTooLong { .. } | Self::Stopped { .. } => None,
        }
    }
}

/// The leader's end of a source that is about to be added, and its handle.
pub(super) struct Opened {
    pub(super) consumer: Consumer,
    pub(super) slots: Slots,
    pub(super) handle: SourceHandle,
}

/// Creates the memory of source `id`. `filter` is that of its worker, unless the options have one.
pub(super) fn open(id: u64, options: SourceOptions, filter: Filter) -> Result<Opened, OpenError> {
    let filter = options.filter.unwrap_or(filter);
    let bytes = filter.to_word().len();
    if bytes > MAX_FILTER_TEXT {
        return Err(OpenError::FilterTooLong { id, bytes });
    }
    let ring_bytes = options.ring_bytes.clamp(MIN_RING, MAX_RING).next_power_of_two();
    let memory = SharedMemory::new(ring_bytes).expect("the size is a power of two within the bounds");
    let region =
        Region::create(&options.backing, memory.bytes).map_err(|source| OpenError::Memory { id, source })?;
    let handle = region
        .handle()
        .map_err(|source| OpenError::Handle { id, source })?;
    Ok(Opened {
        consumer: Consumer::new(&region, memory.ring),
        slots: Slots::new(&region, memory.slots),
        handle: SourceHandle {
            id,
            ring_bytes,
            filter,
            region: handle,
        },
    })
}

shm_buffers::debug_with_causes!(OpenError);
