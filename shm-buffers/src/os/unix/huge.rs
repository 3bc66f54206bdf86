//! Memory on huge pages: reserved ones, else transparent ones, else ordinary ones.

use std::fs::File;

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, memfd_create};

use super::super::{Access, Mapping, Moved, space};
use super::{Store, anonymous, failed};
use crate::backing::{Backing, BackingKind, Pages};
use crate::error::CreateError;
use crate::limits::FileSizeError;

pub(super) fn create(len: usize, moved: Option<&mut Moved<'_>>) -> Result<(Store, Mapping), CreateError> {
    if let Some(made) = reserved(len) {
        return Ok(made);
    }
    space::admit(&Backing::Anonymous, len, moved)?;
    let mut store = anonymous(len)?;
    let mapping = store
        .map(len, Access::ReadWrite)
        .map_err(|e| failed("map", len, store.kind, e))?;
    if is_enabled() && mapping.advise_huge_pages().is_ok() {
        store.pages = Pages::Transparent;
    }
    Ok((store, mapping))
}

/// Whatever hinders it, there is another way: a kernel without them, none reserved, all in use.
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
    // Whole huge pages may be too large for a file where `len` bytes are not.
    FileSizeError::check(size as u64).ok()?;
    store.file.set_len(size as u64).ok()?;
    // Takes the pages out of the reserve; a later touch can't find it empty.
    rustix::fs::fallocate(&store.file, FallocateFlags::empty(), 0, size as u64).ok()?;
    let mapping = store.map(size, Access::ReadWrite).ok()?;
    Some((store, mapping))
}

/// Whether shared memory may have transparent huge pages (admin-guide/mm/transhuge).
fn is_enabled() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    setting.is_ok_and(|setting| {
        ["[always]", "[within_size]", "[advise]", "[force]"]
            .iter()
            .any(|on| setting.contains(on))
    })
}
