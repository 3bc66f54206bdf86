//! [`Adoptable`]: memory of this process whose pages an image takes over, so that there is one copy of its bytes.
#![allow(unsafe_code, reason = "replaces pages of memory that other code owns")]

use std::ptr::NonNull;

/// Memory that was allocated in this process, and that becomes a copy-on-write view of the image into which it is written:
/// [`TensorWriter::add_adopted`](crate::TensorWriter::add_adopted).
///
/// It keeps its address and its bytes, and stays writable; no other process sees what is written there. Its whole pages are written to the image
/// in windows of 8 MiB, each of which is then mapped privately over the memory itself, so that the bytes are in memory once, and the peak is
/// that and one window. For programs in which other code owns the memory, and goes on using it at this address: such as arrays of NumPy.
///
/// Memory that is not private and anonymous (as `/proc/self/maps` shows it), and memory of less than 1 MiB, is copied, and so is all memory on
/// other systems than Linux.
#[derive(Debug)]
pub struct Adoptable {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the promise of `new` does not depend on a thread.
unsafe impl Send for Adoptable {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Adoptable {}

impl Adoptable {
    /// Makes a value for `len` bytes at `start`.
    ///
    /// # Safety
    /// While this value lives, the memory is allocated and readable, no code writes it, and no reference of Rust to it exists.
    ///
    /// Later, its owner must get by with pages that are a private mapping of a file, with the same contents: it may unmap them, write them, and
    /// reuse them without assumptions about what they contain. That is so for memory of glibc's `malloc`, whose `free` unmaps or reuses
    /// it, and whose `realloc` copies if the system refuses to move it. It is not so for allocators which take it for granted that pages
    /// which they have returned to the system (`MADV_DONTNEED`) contain zeros, as jemalloc does, nor for memory that a device has pinned.
    pub unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len }
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `new` has promised that these bytes are allocated, and that no code writes them while this value lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{WINDOW, is_plain, remap_private};

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;

    use rustix::mm::{MapFlags, ProtFlags};

    use super::Adoptable;

    /// Less is copied: the mappings of a process are few.
    const MIN_ADOPTED: usize = 1 << 20;
    /// Bytes that are in both places at the same time.
    pub(crate) const WINDOW: usize = 8 << 20;

    impl Adoptable {
        /// Returns the whole pages, as a range of the bytes; `None` if they are too few.
        pub(crate) fn whole_pages(&self) -> Option<Range<usize>> {
            let page = rustix::param::page_size();
            let address = self.start.as_ptr().addr();
            let first = address.checked_next_multiple_of(page)? - address;
            let end = ((address + self.len) / page * page).checked_sub(address)?;
            (first < end && end - first >= MIN_ADOPTED).then_some(first..end)
        }

        /// Returns the address modulo the size of a page. The position in the file must have the same remainder.
        #[cfg(feature = "models")]
        pub(crate) fn page_offset(&self) -> usize {
            self.start.as_ptr().addr() % rustix::param::page_size()
        }

        /// Writes these whole pages to their position in the file, whose first byte of this memory is at `offset`, and maps that over them.
        pub(crate) fn adopt(&mut self, pages: Range<usize>, file: &File, offset: usize) -> io::Result<()> {
            let mut at = pages.start;
            while at < pages.end {
                let end = pages.end.min(at + WINDOW);
                let position = (offset + at) as u64;
                file.write_all_at(&self.bytes()[at..end], position)?;
                let window = self.start.as_ptr().wrapping_add(at);
                // SAFETY: the caller has checked that the range is of whole pages of private anonymous memory; `new` has promised that its
                // owner gets by with such a mapping, and that no code writes the memory, whose bytes the file has at this position. No
                // reference to it exists: the one above has ended, and `&mut self` excludes others of this value.
                unsafe { remap_private(window, end - at, file, position) }?;
                at = end;
            }
            Ok(())
        }
    }

    /// Maps a part of a file privately at an address that is mapped already, in one step.
    ///
    /// # Safety
    /// The memory is of whole pages, its owner gets by with such a mapping, no reference to it exists, and the file has the same bytes there.
    pub(crate) unsafe fn remap_private(
        start: *mut u8,
        len: usize,
        file: &File,
        position: u64,
    ) -> io::Result<()> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the contract of this function.
        let mapped = unsafe { rustix::mm::mmap(start.cast(), len, access, flags, file, position) };
        let Err(error) = mapped else {
            return Ok(());
        };
        // Some systems have unmapped the old pages before they fail.
        // SAFETY: as above. If the pages are there still, the file has their bytes, too.
        let replaced = unsafe { rustix::mm::mmap_anonymous(start.cast(), len, access, flags) };
        let Ok(memory) = replaced else {
            end(&error.into());
        };
        // SAFETY: these bytes were mapped just now, and no reference to them exists.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), len) };
        if file.read_exact_at(bytes, position).is_err() {
            end(&error.into());
        }
        Err(error.into())
    }

    /// Ends the process: memory of its owner is gone.
    fn end(error: &io::Error) -> ! {
        eprintln!("shm-buffers: cannot map memory at the place of other memory: {error}; the process ends");
        std::process::abort()
    }

    /// Returns whether all of these ranges are private anonymous memory that may be written, or such a view of an image.
    pub(crate) fn is_plain(maps: &str, memory: &Adoptable, pages: &Range<usize>) -> bool {
        let address = memory.start.as_ptr().addr();
        let (mut at, end) = (address + pages.start, address + pages.end);
        for line in maps.lines() {
            let Some((range, access, plain)) = parse(line) else {
                return false;
            };
            if range.end <= at {
                continue;
            }
            if range.start > at || !plain || access != "rw-p" {
                return false;
            }
            at = range.end;
            if at >= end {
                return true;
            }
        }
        false
    }

    /// Parses a line of proc_pid_maps(5): the range, the access, and whether it is of anonymous memory, or of an image.
    fn parse(line: &str) -> Option<(Range<usize>, &str, bool)> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let (access, _, _, inode) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let plain = match (inode, words.next()) {
            ("0", None | Some("[heap]")) => true,
            (_, Some(path)) => path.starts_with("/memfd:shm-buffers"),
            _ => false,
        };
        Some((range, access, plain))
    }

    #[cfg(test)]
    mod tests {
        use std::ptr::NonNull;

        use super::*;

        #[test]
        fn only_private_anonymous_memory_is_plain() {
            let memory = Adoptable {
                start: NonNull::new(std::ptr::without_provenance_mut(0x7f00_0000_2010)).expect("not null"),
                len: 0x3000,
            };
            let is_plain = |maps: &str| is_plain(maps, &memory, &(0xff0..0x2ff0));
            let before = "7f0000000000-7f0000001000 r--p 00000000 00:01 7 /lib/x.so\n";
            let one = "7f0000002000-7f0000006000 rw-p 00000000 00:00 0 \n";
            assert!(is_plain(one));
            assert!(is_plain(&format!("{before}{one}")));
            assert!(is_plain(
                "7f0000002000-7f0000004000 rw-p 00000000 00:00 0 [heap]\n\
                 7f0000004000-7f0000006000 rw-p 00001000 00:01 12 /memfd:shm-buffers (deleted)\n"
            ));
            for maps in [
                "",
                before,
                // Shared, read-only, of a file, of a stack, of huge pages.
                "7f0000002000-7f0000006000 rw-s 00000000 00:00 0 \n",
                "7f0000002000-7f0000006000 r--p 00000000 00:00 0 \n",
                "7f0000002000-7f0000006000 rw-p 00000000 08:01 99 /data/model.npy\n",
                "7f0000002000-7f0000006000 rw-p 00000000 00:00 0 [stack]\n",
                "7f0000002000-7f0000006000 rw-p 00000000 00:0f 5 /anon_hugepage (deleted)\n",
                // A part only, and a gap.
                "7f0000002000-7f0000004000 rw-p 00000000 00:00 0 \n",
                "7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \n7f0000004000-7f0000006000 rw-p 00000000 00:00 0 \n",
                "7f0000002000-7f0000004000 rw-p 00000000 00:00 0 \nunknown",
            ] {
                assert!(!is_plain(maps), "{maps}");
            }
        }
    }
}
