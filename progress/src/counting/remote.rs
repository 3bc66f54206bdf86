//! Opens counters for a writer in another process.

use std::error::Error;
use std::fmt;
use std::io;

use shm_buffers::{Backing, CreateError, Region};

use super::bar::Bar;
use super::handle::{self, CountersHandle};
use super::source::Source;

impl Bar {
    /// Opens counters for one writer in another process, and returns its source and the handle with which the worker
    /// [connects](CountersHandle::connect).
    ///
    /// The handle is a text or a value of serde, so it works with `std::process::Command`, a pool of processes, or any
    /// transport of bytes. Keep the source until the worker has ended, then [`retire`](Source::retire) it: the counts of
    /// a worker that was killed stay, too. Each handle takes one page of memory and, on Linux, one file descriptor of
    /// this process until then.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use progress::{Bar, Total};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let exe = "worker";
    /// let bar = Bar::new("recommend", Total::Known(200));
    /// let (source, handle) = bar.remote_counters()?;
    /// let mut worker = Command::new(exe).env("BAR", handle.to_string()).spawn()?;
    /// // In the worker: let counters = std::env::var("BAR")?.parse::<CountersHandle>()?.connect()?;
    /// worker.wait()?;
    /// source.retire();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the system refuses memory or a file descriptor.
    pub fn remote_counters(&self) -> Result<(Source, CountersHandle), RemoteCountersError> {
        self.open(None)
    }

    /// Opens counters as [`remote_counters`](Self::remote_counters) does, and shows the writer in a line of its own, as
    /// [`add_labeled_source`](Self::add_labeled_source) does.
    ///
    /// # Errors
    /// As [`remote_counters`](Self::remote_counters).
    pub fn labeled_remote_counters(
        &self,
        label: impl Into<String>,
    ) -> Result<(Source, CountersHandle), RemoteCountersError> {
        self.open(Some(label.into()))
    }

    fn open(&self, label: Option<String>) -> Result<(Source, CountersHandle), RemoteCountersError> {
        let region = Region::create(&Backing::Auto, handle::byte_len());
        let region = region.map_err(RemoteCountersError::Create)?;
        let slots = handle::prepare(&region);
        let handle = region.handle().map_err(RemoteCountersError::Handle)?;
        let source = self.add_writer(label, slots.clone(), Some(slots));
        Ok((source, CountersHandle::new(handle)))
    }
}

/// The error of [opening](Bar::remote_counters) counters for another process.
#[non_exhaustive]
pub enum RemoteCountersError {
    /// The shared memory of the counters could not be created.
    Create(CreateError),
    /// The shared memory has no handle.
    Handle(io::Error),
}

impl fmt::Display for RemoteCountersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create(_) => {
                "cannot open counters for another process; retire the sources of workers that have ended, or raise \
                 the limit of open files"
            }
            Self::Handle(_) => "cannot make a handle of counters for another process",
        })
    }
}

impl Error for RemoteCountersError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Create(source) => Some(source),
            Self::Handle(source) => Some(source),
        }
    }
}

shm_buffers::debug_with_causes!(RemoteCountersError);
