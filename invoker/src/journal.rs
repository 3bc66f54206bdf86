//! The journal of a run: a file with its outputs, so that a run goes on after its leader has ended.
//!
//! | module | duty |
//! |---|---|
//! | `options` | what users set |
//! | `format` | the file: records as blocks, and back |
//! | `scan`, `index` | the intact blocks of a file, and the place of each output |
//! | `lock` | one leader for each file |
//! | `identity` | the job that a journal belongs to |
//! | `writer` | the thread that appends and syncs |
//! | `input`, `recorder`, `replay` | one run: the tasks without a stored output, the outputs of the workers, and those of the file |
//! | `tool` | `invoker-journal`: lists journals, and copies their intact blocks |

mod format;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod identity;
mod index;
mod input;
mod lock;
mod options;
mod recorder;
mod refused;
mod replay;
mod scan;
mod tool;
mod writer;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use format::{PID_AT, PROLOGUE, first_bytes};
use identity::Identity;
use index::{Index, RunIndex};
pub(crate) use input::{JournalInput, SharedInput, TaskRules};
pub use options::{Journal, JournalFaults, OnWriteError};
pub(crate) use recorder::Recorder;
pub(crate) use refused::refused;
pub(crate) use replay::Replayed;
use scan::{OnDamage, ReadAt, scan};
pub use tool::{JournalInfo, JournalRun, Salvage, Salvaged};
use writer::{SyncPolicy, Writer};

use crate::error::Error;
use crate::journal_error::JournalError;
use crate::model_source::ModelSource;
use crate::op::Op;

/// A journal that this leader has open.
#[derive(Debug)]
pub(crate) struct OpenJournal {
    path: PathBuf,
    faults: JournalFaults,
    file: Arc<File>,
    index: Mutex<Index>,
    writer: Writer,
    /// Number of runs so far.
    runs: AtomicU64,
    /// Number of outputs that were read instead of computed.
    read: AtomicU64,
    torn: u64,
}

impl OpenJournal {
    /// Opens the journal for a job, or creates it.
    pub(crate) fn open<F, M, T, R>(
        options: Journal,
        op: &F,
        model: &ModelSource<'_, M>,
        seed: Option<u64>,
    ) -> Result<Arc<Self>, Error>
    where
        F: Op<M, T, R>,
        M: Serialize + DeserializeOwned,
    {
        let identity = Identity::of(&options, op, model, seed)?;
        Ok(Arc::new(Self::open_for(options, &identity)?))
    }

    fn open_for(options: Journal, identity: &Identity) -> Result<Self, JournalError> {
        let path = options.path;
        let write_failed = |source: std::io::Error| JournalError::Write {
            path: path.clone(),
            source: source.into(),
        };
        let mut file = lock::open_locked(&path)?;
        let first = first_bytes(&identity.to_json(), std::process::id());
        let mut index = Index::default();
        let (len, torn) = if is_new(&file, &path, &first)? {
            writer::cut(&mut file, 0).map_err(write_failed)?;
            file.write_all(&first)
                .and_then(|()| file.sync_all())
                .map_err(write_failed)?;
            sync_directory(&path);
            (first.len() as u64, 0)
        } else {
            let pid = std::process::id().to_le_bytes();
            let found = scan(&*file, &path, OnDamage::Fail, |block, _, position| {
                index.add(&block, position);
                Ok(())
            })?;
            Identity::from_json(&found.identity, &path)?.check(identity, &path)?;
            index.finish(&path)?;
            file.seek(SeekFrom::Start(PID_AT))
                .and_then(|_| file.write_all(&pid))
                .and_then(|()| writer::cut(&mut file, found.end))
                .map_err(write_failed)?;
            (found.end, found.torn)
        };
        let reader = lock::reader(&file, &path).map_err(JournalError::os("open", &path))?;
        let policy = SyncPolicy {
            interval: options.sync_interval,
            bytes: options.sync_bytes,
        };
        let writer = Writer::start(file, len, path.clone(), policy, options.on_write_error)
            .map_err(JournalError::os("start the thread of", &path))?;
        Ok(Self {
            path,
            faults: options.faults,
            file: Arc::new(reader),
            index: Mutex::new(index),
            writer,
            runs: AtomicU64::new(0),
            read: AtomicU64::new(0),
            torn,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the next run. Returns its number and what is stored of it.
    fn start_run(&self) -> (u64, Arc<RunIndex>) {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        (number, index.take(number))
    }

    /// Returns the number of workers for which the chunks of the next run were cut, if it has outputs.
    pub(crate) fn workers_of_next_run(&self) -> Option<usize> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = index.workers(self.runs.load(Ordering::Relaxed))?;
        usize::try_from(workers).ok().filter(|workers| *workers > 0)
    }

    /// Writes everything to the disk.
    ///
    /// # Errors
    /// If the journal could not be written, and the run does not go on without it.
    pub(crate) fn close(&self) -> Result<(), JournalError> {
        self.writer.close();
        match self.writer.error() {
            Some(error) if self.writer.has_failed() => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the number of outputs that were read.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Returns the number of records that were written, and their bytes in the file.
    pub(crate) fn written(&self) -> (u64, u64) {
        self.writer.written()
    }

    /// Returns the bytes at the end of the file that were cut.
    pub(crate) fn torn(&self) -> u64 {
        self.torn
    }

    /// Returns why the journal could not be written, if that is so.
    pub(crate) fn error(&self) -> Option<JournalError> {
        self.writer.error()
    }
}

/// Returns whether a file is empty, or has only a part of the first bytes: its leader was killed while it created the file.
fn is_new(file: &File, path: &Path, first: &[u8]) -> Result<bool, JournalError> {
    let failed = JournalError::os("read", path);
    let len = file.byte_len().map_err(&failed)?;
    if len >= first.len() as u64 {
        return Ok(false);
    }
    let mut found = vec![0; len as usize];
    file.read_at(&mut found, 0).map_err(&failed)?;
    let pid = PID_AT as usize..PROLOGUE;
    let is_same = |(at, byte): (usize, &u8)| pid.contains(&at) || *byte == first[at];
    Ok(found.iter().enumerate().all(is_same))
}

/// Writes a new name to the disk.
fn sync_directory(path: &Path) {
    // An error would mislead: the file is there.
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        let directory = match directory == Path::new("") {
            true => Path::new("."),
            false => directory,
        };
        drop(File::open(directory).and_then(|directory| directory.sync_all()));
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests;
