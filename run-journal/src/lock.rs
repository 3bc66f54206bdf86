//! Opens a journal for one leader: the second one gets an error.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use crate::error::JournalError;
use crate::scan::pid;

/// A file that is locked until this is dropped, or until this process ends, however it ends.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that another thread is starting has it open, too, until it runs its program.
        unlock(&self.0);
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

/// Opens or creates the file, and locks it.
pub(crate) fn open_locked(path: &Path) -> Result<LockedFile, JournalError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = open(&options, path).map_err(|refused| match refused {
        Refused::InUse(pid) => JournalError::InUse {
            path: path.to_owned(),
            pid,
        },
        Refused::Os(step, error) => JournalError::os(step, path)(error),
    })?;
    let file = LockedFile(file);
    let metadata = file.metadata().map_err(JournalError::os("open", path))?;
    match metadata.is_file() {
        true => Ok(file),
        false => Err(JournalError::NotAJournal {
            path: path.to_owned(),
            reason: "it is not a regular file".to_owned(),
        }),
    }
}

/// Why a file was not opened.
enum Refused {
    /// By the process with this id, if it is known.
    InUse(u32),
    Os(&'static str, io::Error),
}

/// Uses `flock`: the lock belongs to the open file, and workers do not inherit that.
#[cfg(unix)]
fn open(options: &OpenOptions, path: &Path) -> Result<File, Refused> {
    use std::time::{Duration, Instant};

    use rustix::fs::{FlockOperation, flock};
    use rustix::io::Errno;
    /// A process that a leader was starting when it was killed has the leader's files until it runs its program.
    const PATIENCE: Duration = Duration::from_secs(2);

    let file = options.open(path).map_err(|error| Refused::Os("open", error))?;
    let started = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if is_gone(pid(&file)) && started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::WOULDBLOCK) => return Err(Refused::InUse(pid(&file))),
            Err(error) => return Err(Refused::Os("lock", error.into())),
        }
    }
}

/// Returns whether a process has ended. The owner of a journal that was created just now is not known.
#[cfg(unix)]
fn is_gone(pid: u32) -> bool {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

fn unlock(file: &File) {
    // On Windows the lock ends with the file, which started processes do not inherit.
    #[cfg(unix)]
    let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
    #[cfg(not(unix))]
    let _ = file;
}

/// The lock is the mode in which the file is shared: others can read it only.
#[cfg(windows)]
fn open(options: &OpenOptions, path: &Path) -> Result<File, Refused> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_SHARE_READ: u32 = 1;
    const ERROR_SHARING_VIOLATION: i32 = 32;
    match options.clone().share_mode(FILE_SHARE_READ).open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => {
            let pid = File::open(path).map_or(0, |file| pid(&file));
            Err(Refused::InUse(pid))
        }
        Err(error) => Err(Refused::Os("open", error)),
    }
}

/// Returns another handle for reading.
pub(crate) fn reader(file: &File, path: &Path) -> io::Result<File> {
    // Reading moves the position of a file on Windows, so the writer's is another one.
    match cfg!(windows) {
        true => File::open(path),
        false => file.try_clone(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_being_started_does_not_prolong_a_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let locked = open_locked(&path).expect("it is new");
        // A process between its fork and its program has the same open file.
        let inherited = locked.try_clone().expect("it can be duplicated");
        assert!(matches!(open_locked(&path), Err(JournalError::InUse { .. })));
        drop(locked);
        open_locked(&path).expect("it is not locked any more");
        drop(inherited);
    }
}
