//! The sweep: named segments whose owner died without a chance to remove them.
//!
//! An owner holds a shared lock on its segment for as long as it lives; the system drops it with the process, however
//! that ends. Who gets the lock exclusively has found a dead owner's segment.

/// What the name of every named segment begins with; 16 random digits follow.
pub(super) const NAME_PREFIX: &str = "shm-buffers-";

/// Removes what dead owners left. A living owner's lock protects its own; what is younger than a minute may not have
/// been locked yet and is left alone.
#[cfg(target_os = "linux")]
pub(super) fn sweep() {
    use rustix::fs::{FlockOperation, Mode, OFlags};

    let Ok(entries) = std::fs::read_dir("/dev/shm") else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(NAME_PREFIX));
        if !ours {
            continue;
        }
        // Anybody may put anything there under this name: never follow a link, never wait for a pipe's other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(file) = rustix::fs::open(entry.path(), flags, Mode::empty()).map(std::fs::File::from) else {
            continue;
        };
        let abandonable = file.metadata().is_ok_and(|metadata| {
            let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
            metadata.is_file() && age.is_some_and(|age| age.as_secs() > 60)
        });
        if abandonable && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// POSIX shared memory can't be listed here.
#[cfg(not(target_os = "linux"))]
pub(super) fn sweep() {}
