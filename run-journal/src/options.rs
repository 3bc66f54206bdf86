//! [`Journal`]: the path and the options of a journal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::identity::named;

/// A file with the outputs of a run: the path, and options. For `Builder::journal` of the crate `invoker`.
///
/// ```
/// use std::time::Duration;
/// use run_journal::{Journal, JournalFaults};
///
/// let journal = Journal::new("scores.journal").op("score 1").faults(JournalFaults::Keep);
/// let journal = journal.sync_interval(Duration::from_secs(5));
/// assert_eq!(journal.path().to_str(), Some("scores.journal"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "pass it to a builder"]
pub struct Journal {
    pub(crate) path: PathBuf,
    pub(crate) op: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) faults: JournalFaults,
    pub(crate) on_write_error: OnWriteError,
    pub(crate) sync_interval: Duration,
    pub(crate) sync_bytes: u64,
}

/// Whether tasks that have failed run again when a run is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalFaults {
    /// Runs them again: the machine may have caused the fault, or the op may have been fixed.
    #[default]
    RunAgain,
    /// Writes faults into the journal, and returns them again as [`JournalError::Kept`](crate::JournalError::Kept). For tasks that
    /// always fail, after a deadline of hours.
    Keep,
}

/// Whether a run ends if its journal cannot be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnWriteError {
    /// Ends the run with [`JournalError::Write`](crate::JournalError::Write), as the error of the next task.
    #[default]
    Fail,
    /// Goes on without the journal, and logs a warning. The report has the error.
    Continue,
}

impl Journal {
    /// Makes the journal of this path. The file is created by the start of the leader if it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            op: None,
            model: None,
            faults: JournalFaults::default(),
            on_write_error: OnWriteError::default(),
            sync_interval: Duration::from_secs(1),
            sync_bytes: 64 << 20,
        }
    }

    /// Identifies the op by a name. By default it is identified by its code in this build of the program, so that another build needs
    /// another journal. With a name, change it (`"score 2"`) whenever outputs, or the types of tasks and outputs, change.
    pub fn op(mut self, name: impl Into<String>) -> Self {
        self.op = Some(name.into());
        self
    }

    /// Identifies the model by a name, such as its version. By default it is identified by a [hash](shm_buffers::fingerprint) of its
    /// contents, for which the start of the leader reads all of it; a model with a `HashMap` needs a name, because its order is another one in each
    /// process.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Sets whether tasks that have failed run again.
    pub fn faults(mut self, faults: JournalFaults) -> Self {
        self.faults = faults;
        self
    }

    /// Sets whether a run ends if the journal cannot be written, for example because the disk is full.
    pub fn on_write_error(mut self, reaction: OnWriteError) -> Self {
        self.on_write_error = reaction;
        self
    }

    /// Sets the age at which an output is on the disk (default: 1 s; the time that the disk takes comes on top). A power failure
    /// costs at most these outputs. The end of the leader alone costs less: outputs are handed to the system after a quarter of it.
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = interval;
        self
    }

    /// Sets the number of bytes after which the journal is synced to the disk before its time (default: 64 MiB). 0 counts as 1.
    pub fn sync_bytes(mut self, bytes: u64) -> Self {
        self.sync_bytes = bytes.max(1);
        self
    }

    /// Returns how [`Identity::op`](crate::Identity::op) describes the op, if it has a name.
    pub fn described_op(&self) -> Option<String> {
        self.op.as_deref().map(named)
    }

    /// Returns how [`Identity::model`](crate::Identity::model) describes the model, if it has a name.
    pub fn described_model(&self) -> Option<String> {
        self.model.as_deref().map(named)
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<PathBuf> for Journal {
    fn from(path: PathBuf) -> Self {
        Self::new(path)
    }
}

impl From<&Path> for Journal {
    fn from(path: &Path) -> Self {
        Self::new(path)
    }
}

impl From<&PathBuf> for Journal {
    fn from(path: &PathBuf) -> Self {
        Self::new(path)
    }
}

impl From<&str> for Journal {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<String> for Journal {
    fn from(path: String) -> Self {
        Self::new(path)
    }
}
