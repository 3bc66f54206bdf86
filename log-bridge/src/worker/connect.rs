//! Connects a worker to the source that its leader has opened.

use std::error::Error;
use std::fmt;

use shm_buffers::ring::Producer;
use shm_buffers::slots::Slots;
use shm_buffers::{AttachError, Region};

use super::builder::WorkerLayerBuilder;
use super::layer::WorkerLayer;
use crate::source_handle::SourceHandle;
use crate::wire::link::Link;
use crate::wire::shared_memory::SharedMemory;

/// Why a worker did not connect to a source.
#[non_exhaustive]
pub enum ConnectError {
    /// The memory is not there any more: the leader has ended, or has removed the source.
    LeaderEnded {
        /// The worker's id.
        id: u64,
        /// The reason, if the system has refused.
        source: Option<AttachError>,
    },
    /// The memory cannot be mapped.
    Attach {
        /// The worker's id.
        id: u64,
        /// The reason.
        source: AttachError,
    },
    /// Another worker has connected, or this one did before.
    AlreadyConnected {
        /// The worker's id.
        id: u64,
    },
    /// The memory has another size than that of the handle's ring: the handle was changed.
    WrongSize {
        /// The worker's id.
        id: u64,
        /// Bytes that the ring and its slots take.
        needed: usize,
        /// Bytes of the memory.
        given: usize,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaderEnded { id, .. } => write!(
                f,
                "cannot connect to log source {id}: its leader has ended or has removed the source; let a running leader open one"
            ),
            Self::Attach { id, .. } => write!(
                f,
                "cannot connect to log source {id}: its memory cannot be mapped"
            ),
            Self::AlreadyConnected { id } => write!(
                f,
                "cannot connect to log source {id}: a worker has connected already; open a source for each worker process"
            ),
            Self::WrongSize { id, needed, given } => write!(
                f,
                "cannot connect to log source {id}: {needed} bytes of memory are needed, its handle leads to {given}; pass on the text that the leader's handle displays"
            ),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::LeaderEnded { source, .. } => source.as_ref().map(|source| source as _),
            Self::Attach { source, .. } => Some(source),
            Self::AlreadyConnected { .. } | Self::WrongSize { .. } => None,
        }
    }
}

impl SourceHandle {
    /// Connects to the source, and returns a builder for the worker's layer, with the handle's filter.
    ///
    /// A source can be connected once, by one process, because its ring has one writer: not again after the builder was
    /// dropped, and not by the process that replaces a worker.
    ///
    /// ```no_run
    /// use log_bridge::SourceHandle;
    ///
    /// let source: SourceHandle = std::env::var("LOGS")?.parse()?;
    /// let _logs = source.connect()?.install()?;
    /// tracing::info!("the leader prints this");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the leader has ended or has removed the source, the memory cannot be reached, or a worker has connected already.
    pub fn connect(&self) -> Result<WorkerLayerBuilder, ConnectError> {
        let id = self.id;
        let region = Region::attach(&self.region).map_err(|source| match source {
            AttachError::Unreachable { .. } | AttachError::Replaced { .. } => ConnectError::LeaderEnded {
                id,
                source: Some(source),
            },
            source => ConnectError::Attach { id, source },
        })?;
        let given = region.byte_len();
        let memory = SharedMemory::new(self.ring_bytes);
        let needed = memory.as_ref().map_or(usize::MAX, |memory| memory.bytes);
        let memory = memory.filter(|memory| memory.bytes <= given);
        let memory = memory.ok_or(ConnectError::WrongSize { id, needed, given })?;
        let slots = Slots::new(&region, memory.slots);
        let link = Link::new(&slots).expect("the memory has all slots");
        if link.is_closed() {
            return Err(ConnectError::LeaderEnded { id, source: None });
        }
        if !link.claim() {
            return Err(ConnectError::AlreadyConnected { id });
        }
        let builder = WorkerLayer::builder(Producer::new(&region, memory.ring), slots);
        Ok(builder.connected(self.region.clone()).filter(self.filter.clone()))
    }
}

shm_buffers::debug_with_causes!(ConnectError);
