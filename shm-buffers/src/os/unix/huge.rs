//! Memory on huge pages: reserved ones, otherwise transparent ones, otherwise ordinary pages.

use std::fs::File;

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, memfd_create};

use super::super::{Access, Mapping, MoveSource, space};
use super::{Store, anonymous};
use crate::backing::{Backing, BackingKind, Pages};
use crate::error::CreateError;
use crate::limits::FileSizeError;

pub(super) fn create(
    len: usize,
    source: Option<&mut MoveSource<'_>>,
) -> Result<(Store, Mapping), CreateError> {
    if let Some(created) = reserved(len) {
        return Ok(created);
    }
    space::admit(&Backing::Anonymous, len, source)?;
    let mut store = anonymous(len)?;
    let mapping = store
        .map(len, Access::ReadWrite)
        .map_err(|e| CreateError::os("map", len, store.kind, e))?;
    if is_enabled() && mapping.advise_huge_pages().is_ok() {
        store.pages = Pages::Transparent;
    }
    Ok((store, mapping))
}

/// Returns memory on reserved huge pages, or `None` if the kernel does not support them, or too few are reserved and free.
fn reserved(len: usize) -> Option<(Store, Mapping)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let file = File::from(memfd_create("shm-buffers", flags).ok()?);
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).ok()?;
    let store = Store {
        kind: BackingKind::Anonymous,
        pages: Pages::Reserved,
        file,
        name: None,
    };
    let size = store.whole_pages(len).ok()?;
    // Whole huge pages may exceed the limit on file sizes where `len` bytes do not.
    FileSizeError::check(size as u64).ok()?;
    store.file.set_len(size as u64).ok()?;
    // Allocates the pages, so that a later touch can't fail.
    rustix::fs::fallocate(&store.file, FallocateFlags::empty(), 0, size as u64).ok()?;
    let mapping = store.map(size, Access::ReadWrite).ok()?;
    Some((store, mapping))
}

/// Returns whether the system's setting allows transparent huge pages of shared memory (admin-guide/mm/transhuge).
fn is_enabled() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    setting.is_ok_and(|setting| {
        ["[always]", "[within_size]", "[advise]", "[force]"]
            .iter()
            .any(|on| setting.contains(on))
    })
}
