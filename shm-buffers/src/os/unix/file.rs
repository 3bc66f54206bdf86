//! Files in a directory, as memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::super::names;
use super::owned_name::{Name, OwnedName};
use super::{Store, reserve};
use crate::backing::{BackingKind, Pages};
use crate::error::CreateError;

pub(super) fn create(dir: &Path, len: usize) -> Result<Store, CreateError> {
    let (file, name) = open(dir).map_err(|source| CreateError::Directory {
        dir: dir.to_owned(),
        source,
    })?;
    reserve(&file, 0, len, BackingKind::File)?;
    Ok(Store {
        kind: BackingKind::File,
        pages: Pages::Ordinary,
        file,
        name,
        #[cfg(not(target_os = "linux"))]
        _lock: None,
    })
}

/// Creates a file without a name: other processes open it through its owner's descriptor.
#[cfg(target_os = "linux")]
fn open(dir: &Path) -> io::Result<(File, Option<OwnedName>)> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;

    // EXCL: the file can't be given a name later.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok((file.into(), None)),
        // Some file systems can't (network file systems, older kernels).
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
            let (file, name) = with_name(dir)?;
            drop(name); // removes it
            Ok((file, None))
        }
        Err(e) => Err(e.into()),
    }
}

/// Creates a file whose path other processes open. It is locked until its owner ends.
#[cfg(not(target_os = "linux"))]
fn open(dir: &Path) -> io::Result<(File, Option<OwnedName>)> {
    // It does not matter whether there was anything to remove.
    let _ = super::super::sweep::sweep(dir);
    let (file, name) = with_name(dir)?;
    // If the file system can't lock files, the sweep can't lock this one either, and keeps it.
    let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
    Ok((file, Some(name)))
}

fn with_name(dir: &Path) -> io::Result<(File, OwnedName)> {
    // Processes that attach may have other working directories, and this process may change its own.
    let dir = std::path::absolute(dir)?;
    names::create_with_name(|name| {
        let path = dir.join(name);
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path)?;
        Ok((file, OwnedName::new(Name::Path(path))))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_with_a_name_is_private_and_removed_with_it() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (file, name) = with_name(dir.path())?;
        assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 1);
        drop(name);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
        Ok(())
    }
}
