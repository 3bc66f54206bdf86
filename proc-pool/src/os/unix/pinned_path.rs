//! [`PinnedPath`]: a program or directory that was found once by its path, and stays the same if the path leads to another one
//! later.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, OwnedFd};

/// A program or a directory. On Linux it is kept open and accessed through its descriptor, so it may be renamed, replaced or
/// removed later, and this process may change its working directory. On other systems, and where `/proc` is not mounted,
/// it is accessed by its absolute path.
#[derive(Debug)]
pub(crate) struct PinnedPath {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    descriptor: Option<OwnedFd>,
}

impl PinnedPath {
    /// Pins a directory.
    ///
    /// # Errors
    /// When the path leads to something else, or does not exist.
    pub(crate) fn directory(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        if !std::fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        #[cfg(target_os = "linux")]
        let descriptor = imp::open(&path)?;
        Ok(Self {
            path,
            #[cfg(target_os = "linux")]
            descriptor,
        })
    }

    /// Pins a program.
    ///
    /// # Errors
    /// When it can't be executed.
    pub(crate) fn program(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        super::check_executable(&path)?;
        // A script is not pinned: the system passes its path to an interpreter, which could not open a descriptor that is
        // closed by then.
        #[cfg(target_os = "linux")]
        let descriptor = match imp::is_native(&path) {
            true => imp::open(&path)?,
            false => None,
        };
        Ok(Self {
            path,
            #[cfg(target_os = "linux")]
            descriptor,
        })
    }

    /// Returns the absolute path by which it was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path by which a new process can access it, from before the process executes its program.
    pub(crate) fn exec_path(&self) -> PathBuf {
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = &self.descriptor {
            return format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into();
        }
        self.path.clone()
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::fs::File;
    use std::io::Read;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    /// Opens `path`; returns `None` where descriptors can't be accessed by paths.
    pub(super) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
        let descriptor = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let reached = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        Ok(std::fs::symlink_metadata(reached).is_ok().then_some(descriptor))
    }

    /// Returns whether the system executes that file itself: it is an ELF file for the same machine as this program.
    pub(super) fn is_native(path: &Path) -> bool {
        // The first 6 bytes: magic, class, byte order. Bytes 18 and 19: the machine.
        let kind = |path: &Path| -> io::Result<([u8; 6], [u8; 2])> {
            let mut head = [0; 20];
            File::open(path)?.read_exact(&mut head)?;
            let [a, b, c, d, e, f, ..] = head;
            Ok(([a, b, c, d, e, f], [head[18], head[19]]))
        };
        match (kind(path), kind(Path::new("/proc/self/exe"))) {
            (Ok(one), Ok(own)) => one == own && one.0.starts_with(b"\x7fELF"),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_found_again_after_it_was_renamed() {
        let top = std::env::temp_dir().join(format!("proc-pool-pinned-{}", std::process::id()));
        std::fs::create_dir_all(top.join("one")).expect("it can be created");
        let pinned = PinnedPath::directory(&top.join("one")).expect("it is a directory");
        assert_eq!(pinned.path(), top.join("one"));
        std::fs::write(top.join("one/file"), "").expect("it can be written");
        #[cfg(target_os = "linux")]
        std::fs::rename(top.join("one"), top.join("two")).expect("it can be renamed");
        assert!(pinned.exec_path().join("file").exists());
        assert!(PinnedPath::directory(&top.join("nowhere")).is_err());
        assert!(PinnedPath::program(&top).is_err());
        std::fs::remove_dir_all(top).expect("it can be removed");
    }
}
