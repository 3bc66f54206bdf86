//! [`OpenJournal`]: a journal that this leader has open.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::JournalError;
use crate::format::{PID_AT, PROLOGUE, first_bytes};
use crate::identity::{Identity, Remedies};
use crate::index::{Index, RunIndex};
use crate::options::{Journal, JournalFaults};
use crate::scan::{OnDamage, ReadAt, scan};
use crate::writer::{SyncPolicy, Writer};
use crate::{lock, writer};

/// A journal that this leader has open.
#[derive(Debug)]
pub struct OpenJournal {
    pub(crate) path: PathBuf,
    pub(crate) faults: JournalFaults,
    pub(crate) file: Arc<File>,
    index: Mutex<Index>,
    pub(crate) writer: Writer,
    /// Number of runs so far.
    runs: AtomicU64,
    /// Number of outputs that were read instead of computed.
    pub(crate) read: AtomicU64,
    torn: u64,
}

impl OpenJournal {
    /// Opens the journal for a job, or creates it. `remedies` are for the parts of [`Identity`], in their order.
    ///
    /// # Errors
    /// If it cannot be read or written, is used by another leader, belongs to another job, or is damaged.
    pub fn open(options: Journal, identity: &Identity, remedies: &Remedies) -> Result<Self, JournalError> {
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
            Identity::from_json(&found.identity, &path)?.check(identity, remedies, &path)?;
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

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the next run. Returns its number and what is stored of it.
    pub(crate) fn start_run(&self) -> (u64, Arc<RunIndex>) {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        (number, index.take(number))
    }

    /// Returns the number of workers for which the chunks of the next run were cut, if it has outputs.
    pub fn workers_of_next_run(&self) -> Option<usize> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = index.workers(self.runs.load(Ordering::Relaxed))?;
        usize::try_from(workers).ok().filter(|workers| *workers > 0)
    }

    /// Writes everything to the disk.
    ///
    /// # Errors
    /// If the journal could not be written, and the run does not go on without it.
    pub fn close(&self) -> Result<(), JournalError> {
        self.writer.close();
        match self.writer.error() {
            Some(error) if self.writer.has_failed() => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the number of outputs that were read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Returns the number of records that were written, and their bytes in the file.
    pub fn written(&self) -> (u64, u64) {
        self.writer.written()
    }

    /// Returns the bytes at the end of the file that were cut.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Returns what becomes of the tasks that have failed.
    pub fn faults(&self) -> JournalFaults {
        self.faults
    }

    /// Returns why the journal could not be written, if that is so.
    pub fn error(&self) -> Option<JournalError> {
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
