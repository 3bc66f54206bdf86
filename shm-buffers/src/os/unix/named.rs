//! POSIX shared memory under a random name.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::shm::OFlags;
use shared_memory::{ShmemConf, ShmemError};

use super::super::{Access, names, sweep};
use super::Store;
use super::owned_name::{Name, OwnedName};
use crate::backing::{BackingKind, Pages};
use crate::error::CreateError;

pub(super) fn create(len: usize) -> Result<Store, CreateError> {
    let kind = BackingKind::Named;
    let failed = |step, source| CreateError::os(step, len, kind, source);
    // It does not matter whether there was anything to remove.
    let _ = sweep::sweep(&sweep::lock_dir());
    let created = names::create_with_name(|id| {
        // Locked before the memory exists: memory without an owner lock is never swept.
        #[cfg(not(target_os = "linux"))]
        let lock = sweep::OwnerLock::new(&sweep::lock_dir(), id)?;
        let (file, name) = create_memory(id, len)?;
        #[cfg(target_os = "linux")]
        return Ok((file, name));
        #[cfg(not(target_os = "linux"))]
        Ok((file, name, lock))
    });
    #[cfg(target_os = "linux")]
    let (file, name) = created.map_err(|e| failed("create", e))?;
    #[cfg(not(target_os = "linux"))]
    let (file, name, lock) = created.map_err(|e| failed("create", e))?;
    // On other systems it can be neither locked nor reserved, and its size is final. Locked before it has a block: see `sweep`.
    #[cfg(target_os = "linux")]
    {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared)
            .map_err(|e| failed("lock", e.into()))?;
        super::reserve(&file, 0, len, kind)?;
    }
    Ok(Store {
        kind,
        pages: Pages::Ordinary,
        file,
        name: Some(name),
        #[cfg(not(target_os = "linux"))]
        _lock: Some(lock),
    })
}

/// Creates memory of `len` bytes that no page of is allocated yet.
fn create_memory(id: &str, len: usize) -> io::Result<(File, OwnedName)> {
    // macOS allows 31 bytes, and this is shorter.
    let name = format!("/{id}");
    let created = ShmemConf::new().os_id(&name).size(len).create();
    let mut shmem = created.map_err(|e| match e {
        ShmemError::MappingIdExists => io::ErrorKind::AlreadyExists.into(),
        other => io::Error::other(other),
    })?;
    // From here on, `OwnedName` removes the name. `Shmem` keeps a writable mapping while it lives, which must end before the
    // segment is frozen.
    let file = open(&name, Access::ReadWrite)?;
    let name = OwnedName::new(Name::Shm(name));
    shmem.set_owner(false);
    Ok((file.into(), name))
}

pub(super) fn open(name: &str, access: Access) -> io::Result<OwnedFd> {
    let flags = match access {
        Access::ReadOnly | Access::CopyOnWrite => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    Ok(rustix::shm::open(name, flags, Mode::empty())?)
}
