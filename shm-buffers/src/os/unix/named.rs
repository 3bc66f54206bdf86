//! POSIX shared memory under a random name.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use shared_memory::ShmemConf;

use super::super::Access;
use super::super::sweep::{self, NAME_PREFIX};
use super::Store;
use super::owned_name::{Name, OwnedName};
use crate::backing::{BackingKind, Pages};
use crate::error::CreateError;

pub(super) fn create(len: usize) -> Result<Store, CreateError> {
    let kind = BackingKind::Named;
    sweep::sweep(&sweep::lock_dir());
    let id = getrandom::u64().map_err(|e| CreateError::os("name", len, kind, io::Error::other(e)))?;
    let id = format!("{NAME_PREFIX}{id:016x}");
    // Locked before the memory exists: memory without an owner lock is never swept.
    #[cfg(not(target_os = "linux"))]
    let lock = sweep::OwnerLock::new(&sweep::lock_dir(), &id)
        .map_err(|e| CreateError::os("lock the name of", len, kind, e))?;
    // macOS allows 31 bytes, and this is shorter.
    let name = format!("/{id}");
    let mut shmem = ShmemConf::new()
        .os_id(&name)
        .size(len)
        .create()
        .map_err(|e| CreateError::os("create", len, kind, io::Error::other(e)))?;
    // From here on, `OwnedName` removes the name. `Shmem` keeps a writable mapping while it lives, which must end before the
    // segment is frozen.
    let fd = open(&name, Access::ReadWrite).map_err(|e| CreateError::os("open", len, kind, e))?;
    let name = OwnedName::new(Name::Shm(name));
    shmem.set_owner(false);
    drop(shmem);
    let file = File::from(fd);
    // On other systems it can be neither locked nor reserved, and its size is final.
    #[cfg(target_os = "linux")]
    {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared)
            .map_err(|e| CreateError::os("lock", len, kind, e.into()))?;
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

pub(super) fn open(name: &str, access: Access) -> io::Result<OwnedFd> {
    let flags = match access {
        Access::ReadOnly => rustix::shm::OFlags::RDONLY,
        Access::ReadWrite => rustix::shm::OFlags::RDWR,
    };
    Ok(rustix::shm::open(name, flags, Mode::empty())?)
}
