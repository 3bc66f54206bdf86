//! The sweep: removes named memory and files whose owner was killed.
//!
//! An owner locks a file for as long as it lives. The system releases the lock when the process ends, for whatever reason. A
//! process that can lock the file exclusively knows that the owner is dead. On Linux the file is the memory itself. On systems
//! whose shared memory can be neither listed nor locked (macOS) it is an [`OwnerLock`], an empty file of the same name.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// The prefix of the names of all named segments. Random digits follow.
pub(super) const NAME_PREFIX: &str = "shm-buffers-";

/// Returns the directory with the files that the owners of named memory lock.
pub(super) fn lock_dir() -> PathBuf {
    match cfg!(target_os = "linux") {
        true => "/dev/shm".into(),
        false => std::env::temp_dir(),
    }
}

/// Removes the files that dead owners left in `dir`, and the shared memory of the same names. A lock protects the file of a
/// living owner. A file that is younger than a minute may not be locked yet, and stays.
pub(super) fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(NAME_PREFIX)) else {
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
            metadata.is_file() && own && age.is_some_and(|age| age.as_secs() > 60)
        });
        if may_be_abandoned && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Fails if the file is the memory itself: the next line removes it.
            let _ = rustix::shm::unlink(format!("/{name}"));
            drop(std::fs::remove_file(entry.path()));
        }
    }
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
    pub(super) fn new(dir: &Path, name: &str) -> std::io::Result<Self> {
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
        let names =
            ["living", "dead", "young"].map(|owner| format!("{NAME_PREFIX}{owner}-{}", std::process::id()));
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
        let [living, dead, young] = &names;
        // As after a SIGKILL, the lock is released and the file stays.
        let kill = |at: usize| {
            let path = &locks[at].path;
            std::fs::remove_file(path).and_then(|()| File::create(path))
        };
        kill(1)?.set_modified(long_ago)?;
        drop(kill(2)?);

        sweep(dir.path());
        assert_eq!(
            [living, dead, young].map(|name| exists(name)),
            [true, false, true]
        );
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 2);

        drop(locks);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
        for name in [living, young] {
            rustix::shm::unlink(format!("/{name}"))?;
        }
        Ok(())
    }
}
