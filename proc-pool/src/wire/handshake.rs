//! The handshake: the message that the leader sends to a worker process as soon as they are connected. `os::introduction`
//! transports it, together with file descriptors; `process::manager` writes it, and `worker::startup` reads it.

use serde::{Deserialize, Serialize};
use shm_buffers::RegionHandle;
use shm_buffers::descriptors::{Descriptors, collect};

use super::encoding::{decode, encode};
use super::entry::Entry;
use super::layout::RegionSizes;
use super::value::ValuePayload;
use crate::error::WorkerId;

/// Everything that a worker needs to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// The worker's index in the pool.
    pub(crate) worker: WorkerId,
    /// The number of workers that the pool has at the moment.
    pub(crate) workers: u32,
    /// The number of processes that this worker had before.
    pub(crate) generation: u32,
    pub(crate) entry: Entry,
    /// The memory that this worker shares with the leader, with parts of these sizes.
    pub(crate) region: RegionHandle,
    pub(crate) sizes: RegionSizes,
    pub(crate) init: ValuePayload,
    /// The values that were made for this process, as encoded [`WorkerValue`](super::worker_values::WorkerValue)s.
    pub(crate) values: ValuePayload,
    pub(crate) spin: Spin,
    pub(crate) inherited: Inherited,
}

impl Welcome {
    /// Returns the message as bytes, and the descriptors that the handles in it refer to.
    pub(crate) fn encoded(&self) -> Result<(Vec<u8>, Descriptors), String> {
        let mut bytes = Vec::new();
        let (encoded, descriptors) = collect(|| encode(self, &mut bytes));
        encoded.map_err(|e| e.to_string())?;
        Ok((bytes, descriptors))
    }

    pub(crate) fn decoded(bytes: &[u8]) -> Result<Self, String> {
        decode(bytes).map_err(|e| e.to_string())
    }
}

/// Which open files of the leader a worker process keeps, in addition to its standard streams. This matters only for files
/// that a library has opened without close-on-exec: the system closes all others when it executes the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Inherited {
    /// None: the worker closes them before it runs anything else. On Windows it keeps them, because inherited handles can't be
    /// distinguished from its own there.
    #[default]
    Nothing,
    /// All of them, for ops that need one: the job server of `make`, or the output file of a profiler.
    Everything,
}

/// Whether a worker may spin before it parks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Spin {
    /// There are cores to spare.
    Briefly,
    /// Spinning would take the core from the thread that the worker waits for.
    Never,
}
