//! POSIX shared memory under a random name.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use shared_memory::ShmemConf;

use super::super::Access;
use super::super::sweep::{self, NAME_PREFIX};
use super::{Name, Place, Store, failed};
use crate::backing::{BackingKind, Pages};
use crate::error::CreateError;

pub(super) fn create(len: usize) -> Result<Store, CreateError> {
    let kind = BackingKind::Named;
    sweep::sweep(&sweep::place());
    let id = random().map_err(|e| failed("name", len, kind, io::Error::other(e)))?;
    let id = format!("{NAME_PREFIX}{id:016x}");
    // Before the memory: what has no mark is never swept.
    #[cfg(not(target_os = "linux"))]
    let mark = sweep::Mark::new(&sweep::place(), &id).map_err(|e| failed("mark", len, kind, e))?;
    // Within the 31 bytes that macOS allows.
    let name = format!("/{id}");
    let mut shmem = ShmemConf::new()
        .os_id(&name)
        .size(len)
        .create()
        .map_err(|e| failed("create", len, kind, io::Error::other(e)))?;
    // From here on the name is ours to remove: `Shmem` keeps a writable mapping for as long as it lives, and
    // that must end when the segment is frozen.
    let fd = open(&name, Access::ReadWrite).map_err(|e| failed("open", len, kind, e))?;
    let name = Name::new(Place::Shm(name));
    shmem.set_owner(false);
    drop(shmem);
    let file = File::from(fd);
    // Elsewhere it can neither be locked nor reserved, and was sized for good.
    #[cfg(target_os = "linux")]
    {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared)
            .map_err(|e| failed("lock", len, kind, e.into()))?;
        super::reserve(&file, 0, len, kind)?;
    }
    Ok(Store {
        kind,
        pages: Pages::Ordinary,
        file,
        name: Some(name),
        #[cfg(not(target_os = "linux"))]
        _mark: Some(mark),
    })
}

pub(super) fn open(name: &str, access: Access) -> io::Result<OwnedFd> {
    let flags = match access {
        Access::ReadOnly => rustix::shm::OFlags::RDONLY,
        Access::ReadWrite => rustix::shm::OFlags::RDWR,
    };
    Ok(rustix::shm::open(name, flags, Mode::empty())?)
}

fn random() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}
