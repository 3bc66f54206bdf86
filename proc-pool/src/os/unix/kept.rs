//! Programs and directories that are found once by their path, and stay the same when the path leads elsewhere later.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, OwnedFd};

/// A program or a directory. On Linux it is kept open, and reached through its descriptor: it may be renamed, replaced or
/// removed meanwhile, and this process may change its working directory. Elsewhere, and where `/proc` is not mounted, it is
/// reached by its absolute path.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    descriptor: Option<OwnedFd>,
}

impl Kept {
    /// A directory.
    ///
    /// # Errors
    /// When the path leads to something else, or nowhere.
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

    /// A program that can be executed.
    ///
    /// # Errors
    /// When it can't be executed.
    pub(crate) fn program(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        super::check_executable(&path)?;
        // An interpreter is given the path of what it is to run, and could not open a descriptor that is closed by then.
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

    /// Returns the absolute path that it was found by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a path that leads there for a process that this one is about to execute.
    pub(crate) fn reach(&self) -> PathBuf {
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

    /// `None` where descriptors can't be reached by paths.
    pub(super) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
        let descriptor = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let reached = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        Ok(std::fs::symlink_metadata(reached).is_ok().then_some(descriptor))
    }

    /// Whether the system executes that file itself: it is an ELF file for the machine that this program is for.
    pub(super) fn is_native(path: &Path) -> bool {
        // Magic, class, byte order; the machine.
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
        let top = std::env::temp_dir().join(format!("proc-pool-kept-{}", std::process::id()));
        std::fs::create_dir_all(top.join("one")).expect("it can be made");
        let kept = Kept::directory(&top.join("one")).expect("it is a directory");
        assert_eq!(kept.path(), top.join("one"));
        std::fs::write(top.join("one/file"), "").expect("it can be written");
        #[cfg(target_os = "linux")]
        std::fs::rename(top.join("one"), top.join("two")).expect("it can be renamed");
        assert!(kept.reach().join("file").exists());
        assert!(Kept::directory(&top.join("nowhere")).is_err());
        assert!(Kept::program(&top).is_err());
        std::fs::remove_dir_all(top).expect("it is ours");
    }
}
