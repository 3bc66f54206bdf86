//! The sweep: named memory and files whose owner died without a chance to remove them.
//!
//! An owner holds a lock on a file for as long as it lives; the system drops it with the process, however that ends. Who
//! gets the lock exclusively has found what a dead owner left. On Linux that file is the memory itself. Shared memory
//! that can be neither listed nor locked (macOS) has a [`Mark`] instead, an empty file of the same name.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// What the name of every segment that has one begins with; random digits follow.
pub(super) const NAME_PREFIX: &str = "shm-buffers-";

/// The directory with the files that are locked by the owners of named memory.
pub(super) fn place() -> PathBuf {
    match cfg!(target_os = "linux") {
        true => "/dev/shm".into(),
        false => std::env::temp_dir(),
    }
}

/// Removes what dead owners left in `dir`, and the shared memory of the same name. A living owner's lock protects its
/// own; what is younger than a minute may not have been locked yet and is left alone.
pub(super) fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(NAME_PREFIX)) else {
            continue;
        };
        // Anybody may put anything there under this name: never follow a link, never wait for a pipe's other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = rustix::fs::open(entry.path(), flags, Mode::empty()).map(File::from) else {
            continue;
        };
        let abandonable = file.metadata().is_ok_and(|metadata| {
            let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
            let own = metadata.uid() == rustix::process::geteuid().as_raw();
            metadata.is_file() && own && age.is_some_and(|age| age.as_secs() > 60)
        });
        if abandonable && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // There is none where the file is all.
            let _ = rustix::shm::unlink(format!("/{name}"));
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Says that the owner of named memory lives, while it is held.
#[cfg(any(not(target_os = "linux"), test))]
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// The process that made it. In a forked child the drop of a copy leaves the file alone.
    maker: u32,
    /// Its lock ends with it.
    _file: File,
}

#[cfg(any(not(target_os = "linux"), test))]
impl Mark {
    /// Marks the shared memory `name`, which is to be made after this.
    pub(super) fn new(dir: &Path, name: &str) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        let path = dir.join(name);
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        let mark = Self {
            path,
            maker: std::process::id(),
            _file: file,
        };
        rustix::fs::flock(&mark._file, FlockOperation::NonBlockingLockShared)?;
        Ok(mark)
    }
}

#[cfg(any(not(target_os = "linux"), test))]
impl Drop for Mark {
    fn drop(&mut self) {
        if self.maker == std::process::id() {
            // It may be gone already: no error.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn is_there(name: &str) -> bool {
        let name = format!("/{name}");
        rustix::shm::open(&name, rustix::shm::OFlags::RDONLY, Mode::empty()).is_ok()
    }

    /// Runs what macOS relies on, where shared memory is found by marks alone.
    #[test]
    fn memory_goes_with_a_dead_owners_mark() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let long_ago = SystemTime::now() - Duration::from_secs(600);
        let names =
            ["living", "dead", "young"].map(|owner| format!("{NAME_PREFIX}{owner}-{}", std::process::id()));
        let mut marks = Vec::new();
        for name in &names {
            let flags = rustix::shm::OFlags::CREATE | rustix::shm::OFlags::RDWR;
            drop(rustix::shm::open(
                format!("/{name}"),
                flags,
                Mode::RUSR | Mode::WUSR,
            )?);
            let mark = Mark::new(dir.path(), name)?;
            mark._file.set_modified(long_ago)?;
            marks.push(mark);
        }
        let [living, dead, young] = &names;
        // As at a SIGKILL, the lock goes and the file stays.
        let end = |at: usize| {
            let path = &marks[at].path;
            std::fs::remove_file(path).and_then(|()| File::create(path))
        };
        end(1)?.set_modified(long_ago)?;
        drop(end(2)?);

        sweep(dir.path());
        assert_eq!(
            [living, dead, young].map(|name| is_there(name)),
            [true, false, true]
        );
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 2);

        drop(marks);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
        for name in [living, young] {
            rustix::shm::unlink(format!("/{name}"))?;
        }
        Ok(())
    }
}
