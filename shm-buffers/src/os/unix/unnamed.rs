//! Stands in for `named` without the feature of that name: there is no named memory.

use std::io;
use std::os::fd::OwnedFd;

use super::Store;
use crate::backing::BackingKind;
use crate::error::CreateError;
use crate::os::Access;

pub(super) fn create(_len: usize) -> Result<Store, CreateError> {
    Err(CreateError::Unsupported {
        backing: BackingKind::Named,
    })
}

pub(super) fn open(_name: &str, _access: Access) -> io::Result<OwnedFd> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "shm-buffers was built without its feature `named`",
    ))
}
