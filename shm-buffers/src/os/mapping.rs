//! [`Mapping`]: mapped memory, and the only functions that turn it into references.
#![allow(unsafe_code, reason = "turns mapped memory into slices and atomics")]

use std::ptr::NonNull;

use memmap2::MmapRaw;

use crate::backing::CoreDump;

/// Maps a file so that writes go to private copies of its pages.
pub(super) fn copy_on_write(
    options: &memmap2::MmapOptions,
    file: impl memmap2::MmapAsRawDesc,
) -> std::io::Result<MmapRaw> {
    // SAFETY: memmap2 requires that no process changes the file while a slice of it exists. The result has no such slice; the
    // callers of `Mapping::bytes` and `bytes_mut` give that guarantee, as for every other mapping.
    Ok(unsafe { options.map_copy(file) }?.into())
}

/// Page-aligned memory, mapped into this process while this value lives.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// Unmaps when dropped.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "it only unmaps when dropped")
    )]
    owner: Owner,
}

#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "the fields own the mapping, and are not read")
)]
enum Owner {
    Mmap(MmapRaw),
    #[cfg(windows)]
    View(super::windows::View),
}

// SAFETY: `start` and `len` describe memory owned by `owner`, which no thread is tied to: unmapping is allowed
// from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared references give access to `&[u8]`, `&[AtomicU64]` and plain numbers.
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

    /// Returns the address of the first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Maps the file from its start privately in this place. The bytes stay the same.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub(crate) fn become_private(&self, file: &std::fs::File) -> std::io::Result<()> {
        // SAFETY: a mapping is of whole pages and belongs to this value, which unmaps it in the same way; the file is what it has mapped, so
        // that it has the same bytes. The caller owns a segment that is not frozen, of which there are no references now.
        unsafe { crate::adopt::remap_private(self.start(), self.len, file, 0) }
    }

    /// Changes the length to `len` bytes, and may move the mapping. Bytes beyond the end of the mapped memory must not be
    /// touched.
    #[cfg(target_os = "linux")]
    pub(crate) fn remap(&mut self, len: usize) -> std::io::Result<()> {
        let Owner::Mmap(mmap) = &mut self.owner;
        let options = memmap2::RemapOptions::new().may_move(true);
        // SAFETY: `&mut self` means that no reference into the mapping exists that would dangle when it moves.
        unsafe { mmap.remap(len, options)? };
        self.start = NonNull::new(mmap.as_mut_ptr()).unwrap_or(NonNull::dangling());
        self.len = mmap.len();
        Ok(())
    }

    #[cfg(all(unix, not(target_os = "linux")))]
    pub(crate) fn remap(&mut self, _len: usize) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Requests transparent huge pages.
    #[cfg(unix)]
    pub(crate) fn advise_huge_pages(&self) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        let Owner::Mmap(mmap) = &self.owner;
        #[cfg(target_os = "linux")]
        return mmap.advise(memmap2::Advice::HugePage);
        #[cfg(not(target_os = "linux"))]
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Sets whether a core dump of this process contains the memory.
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

    /// Allocates the pages of these bytes, where the system supports that (Linux 5.14). A lack of memory is an error here, not
    /// a signal or a killed process at the first touch.
    #[cfg(not(loom))]
    pub(crate) fn populate(&self, start: usize, len: usize) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let Owner::Mmap(mmap) = &self.owner;
            match mmap.advise_range(memmap2::Advice::PopulateWrite, start, len) {
                // The kernel is older, or the mapping has no such pages.
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

    /// Returns the whole pages of these bytes of shared memory to the system, where that is supported (Linux). In every process,
    /// they contain zeros from then on.
    ///
    /// # Safety
    /// The mapping is writable, and references to these bytes are only those of [`words`](Self::words).
    #[cfg(not(loom))]
    pub(crate) unsafe fn release(&self, start: usize, len: usize) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let Owner::Mmap(mmap) = &self.owner;
            let page = rustix::param::page_size();
            let (first, end) = (start.next_multiple_of(page), (start + len) / page * page);
            if first >= end {
                return Ok(());
            }
            // SAFETY: the bytes change to zeros. By this function's contract they are accessed as atomics only, which may change
            // at any time, and for which zeros are valid. The function checks that the range is in the mapping.
            unsafe { mmap.unchecked_advise_range(memmap2::UncheckedAdvice::Remove, first, end - first) }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (start, len);
            Err(std::io::ErrorKind::Unsupported.into())
        }
    }

    /// Returns the bytes of memory that is no longer written.
    ///
    /// # Safety
    /// No thread, in this or another process, writes the memory while the reference lives.
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: `start..start + len` is mapped and readable while `self` lives (the constructors take it from
        // the owner). It is initialized, since the kernel provides zeroed pages or pages of a file. It is not written, by
        // this function's contract.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Returns the bytes of memory that only this mapping's owner accesses.
    ///
    /// # Safety
    /// The mapping is writable, and no other reference, in this or another process, reads or writes the memory while
    /// the returned one lives.
    pub(crate) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is mapped and initialized as in `bytes`. It is writable and unshared by this function's
        // contract, and `&mut self` excludes a second reference from this mapping.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Returns the memory as atomic words. Other processes may write it at the same time.
    ///
    /// # Safety
    /// The mapping is writable: writing a word of read-only memory would fault.
    #[cfg(not(loom))]
    pub(crate) unsafe fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        let words = self.len / size_of::<u64>();
        // SAFETY: the memory is mapped and, by this function's contract, writable while `self` lives. It is page-aligned,
        // so aligned for u64, and every bit pattern is a valid AtomicU64. This process accesses it through these atomics
        // only; accesses of other processes are outside of the abstract machine, and the hardware does not tear aligned
        // 8-byte accesses.
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
