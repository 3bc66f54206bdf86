//! The sweep: removes named memory and files whose owner was killed.
//!
//! An owner locks a file for as long as it lives. The system releases the lock when the process ends, for whatever reason. A
//! process that can lock the file exclusively knows that the owner is dead. On Linux the file is the memory itself. On systems
//! whose shared memory can be neither listed nor locked (macOS) it is an [`OwnerLock`], an empty file of the same name.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::names::PREFIX;

/// Returns the directory with the files that the owners of named memory lock.
pub(super) fn lock_dir() -> PathBuf {
    match cfg!(target_os = "linux") {
        true => "/dev/shm".into(),
        false => std::env::temp_dir(),
    }
}

/// Removes the files that dead owners left in `dir`, and the shared memory of the same names. Returns how many there were.
///
/// A lock protects the file of a living owner. A file that is younger than a minute and has no contents yet (on Linux: no block)
/// may not be locked yet, and stays: owners lock a file before they write to it or reserve its memory.
pub(super) fn sweep(dir: &Path) -> io::Result<usize> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        // Any user may have created a file of this name: never follow a link, never wait for the peer of a pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = rustix::fs::open(entry.path(), flags, Mode::empty()).map(File::from) else {
            continue;
        };
        let may_be_abandoned = file.metadata().is_ok_and(|metadata| {
            let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
            let own = metadata.uid() == rustix::process::geteuid().as_raw();
            let has_contents = match cfg!(target_os = "linux") {
                true => metadata.blocks() > 0,
                false => metadata.len() > 0,
            };
            let was_locked = has_contents || age.is_some_and(|age| age.as_secs() > 60);
            metadata.is_file() && own && was_locked
        });
        if may_be_abandoned && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let memory = rustix::shm::unlink(format!("/{name}")).is_ok();
            // Fails if the file was the memory itself.
            let file = std::fs::remove_file(entry.path()).is_ok();
            removed += usize::from(memory || file);
        }
    }
    Ok(removed)
}

/// A locked file that shows that the owner of named memory is alive.
#[cfg(any(not(target_os = "linux"), test))]
#[derive(Debug)]
pub(super) struct OwnerLock {
    path: PathBuf,
    /// The process that created the file. In a forked child, dropping a copy does not remove the file.
    creator: u32,
    /// Closing the file releases the lock.
    _file: File,
}

#[cfg(any(not(target_os = "linux"), test))]
impl OwnerLock {
    /// Creates and locks the file for the shared memory `name`. Called before the memory is created.
    pub(super) fn new(dir: &Path, name: &str) -> io::Result<Self> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;

        let path = dir.join(name);
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        let lock = Self {
            path,
            creator: std::process::id(),
            _file: file,
        };
        rustix::fs::flock(&lock._file, FlockOperation::NonBlockingLockShared)?;
        // See `sweep`: a file with contents was locked.
        (&lock._file).write_all(b"locked by the owner of the shared memory of this name\n")?;
        Ok(lock)
    }
}

#[cfg(any(not(target_os = "linux"), test))]
impl Drop for OwnerLock {
    fn drop(&mut self) {
        if self.creator == std::process::id() {
            // It is no error if it is removed already.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn exists(name: &str) -> bool {
        let name = format!("/{name}");
        rustix::shm::open(&name, rustix::shm::OFlags::RDONLY, Mode::empty()).is_ok()
    }

    /// Tests what macOS relies on, where only owner locks show which shared memory exists.
    #[test]
    fn sweep_removes_only_the_memory_of_dead_owners() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let long_ago = SystemTime::now() - Duration::from_secs(600);
        let names = ["living", "dead", "dead-early", "young"]
            .map(|owner| format!("{PREFIX}{owner}-{}", std::process::id()));
        let mut locks = Vec::new();
        for name in &names {
            let flags = rustix::shm::OFlags::CREATE | rustix::shm::OFlags::RDWR;
            drop(rustix::shm::open(
                format!("/{name}"),
                flags,
                Mode::RUSR | Mode::WUSR,
            )?);
            let lock = OwnerLock::new(dir.path(), name)?;
            lock._file.set_modified(long_ago)?;
            locks.push(lock);
        }
        // After a SIGKILL, the lock is released and the file stays.
        let kill = |at: usize, contents: &str| {
            let path = &locks[at].path;
            std::fs::remove_file(path)?;
            std::fs::write(path, contents)
        };
        kill(1, "locked")?;
        kill(2, "")?;
        File::options()
            .write(true)
            .open(&locks[2].path)?
            .set_modified(long_ago)?;
        kill(3, "")?;

        assert_eq!(sweep(dir.path())?, 2);
        assert_eq!(
            names.each_ref().map(|name| exists(name)),
            [true, false, false, true]
        );
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 2);
        assert_eq!(sweep(&dir.path().join("none"))?, 0);

        drop(locks);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
        for name in [&names[0], &names[3]] {
            rustix::shm::unlink(format!("/{name}"))?;
        }
        Ok(())
    }
}
