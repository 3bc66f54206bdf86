//! [`Mapping`]: mapped memory, and the only places that turn it into references.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use memmap2::MmapRaw;

use crate::backing::CoreDump;

/// Memory mapped into this process, page-aligned, for as long as this value lives.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// Unmaps when dropped.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "it is there to be dropped")
    )]
    owner: Owner,
}

#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "they own the mapping, and are not read")
)]
enum Owner {
    Mmap(MmapRaw),
    #[cfg(windows)]
    View(super::windows::View),
}

// SAFETY: `start` and `len` describe memory owned by `owner`, which no thread is tied to: unmapping is allowed
// from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared references give `&[u8]`, `&[AtomicU64]` or plain numbers.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn from_mmap(mmap: MmapRaw) -> Self {
        let len = mmap.len();
        let start = NonNull::new(mmap.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Self {
            start,
            len,
            owner: Owner::Mmap(mmap),
        }
    }

    #[cfg(windows)]
    pub(super) fn from_view(view: super::windows::View, len: usize) -> Self {
        Self {
            start: NonNull::new(view.start()).unwrap_or(NonNull::dangling()),
            len,
            owner: Owner::View(view),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes the mapping `len` bytes long, maybe elsewhere. Whatever lies behind the end of what is mapped must
    /// not be touched.
    #[cfg(target_os = "linux")]
    pub(crate) fn remap(&mut self, len: usize) -> std::io::Result<()> {
        let Owner::Mmap(mmap) = &mut self.owner;
        let options = memmap2::RemapOptions::new().may_move(true);
        // SAFETY: `&mut self`: nobody holds a reference into the mapping that could be left behind when it moves.
        unsafe { mmap.remap(len, options)? };
        self.start = NonNull::new(mmap.as_mut_ptr()).unwrap_or(NonNull::dangling());
        self.len = mmap.len();
        Ok(())
    }

    #[cfg(all(unix, not(target_os = "linux")))]
    pub(crate) fn remap(&mut self, _len: usize) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Asks for transparent huge pages.
    #[cfg(unix)]
    pub(crate) fn advise_huge_pages(&self) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        let Owner::Mmap(mmap) = &self.owner;
        #[cfg(target_os = "linux")]
        return mmap.advise(memmap2::Advice::HugePage);
        #[cfg(not(target_os = "linux"))]
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Decides whether a core dump of this process contains the memory.
    pub(crate) fn dump(&self, dump: CoreDump) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let Owner::Mmap(mmap) = &self.owner;
            mmap.advise(match dump {
                CoreDump::Exclude => memmap2::Advice::DontDump,
                CoreDump::Include => memmap2::Advice::DoDump,
            })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = dump;
            Err(std::io::ErrorKind::Unsupported.into())
        }
    }

    /// Makes the pages of these bytes, where the system can be asked to (Linux 5.14): that there is no memory for them is an
    /// error here, rather than a signal or a killed process at the first touch.
    #[cfg(not(loom))]
    pub(crate) fn populate(&self, start: usize, len: usize) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let Owner::Mmap(mmap) = &self.owner;
            match mmap.advise_range(memmap2::Advice::PopulateWrite, start, len) {
                // An older kernel, or a mapping that has no such pages.
                Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
                populated => populated,
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (start, len);
            Ok(())
        }
    }

    /// The bytes, for memory that nobody writes any more.
    ///
    /// # Safety
    /// Nobody, in this or another process, writes the memory while the reference lives.
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: `start..start + len` is mapped and readable while `self` lives (the constructors take it from
        // the owner); initialized, since the kernel hands out zeroed or file pages; unwritten by this function's
        // contract.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, for memory that only this mapping's owner knows.
    ///
    /// # Safety
    /// The mapping is writable, and nobody else, in this or another process, reads or writes the memory while
    /// the reference lives.
    pub(crate) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped and initialized as in `bytes`; writable and unshared by this function's contract, and
        // `&mut self` rules out a second reference from here.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The memory as atomic words, whoever else writes it.
    ///
    /// # Safety
    /// The mapping is writable (an atomic read of read-only memory would be fine on our platforms, a write not).
    #[cfg(not(loom))]
    pub(crate) unsafe fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        let words = self.len / size_of::<u64>();
        // SAFETY: mapped while `self` lives; page-aligned, so aligned for u64; every bit pattern is a valid
        // AtomicU64; all access in this process goes through these atomics, and what other processes do is
        // outside the abstract machine, where the hardware keeps aligned 8-byte accesses whole.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), words) }
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
