//! Memory that stays at its address, as a copy-on-write view of a segment: [`SegmentMut::freeze_in_place`], and what images adopt.

use super::{Origin, Segment, SegmentMut};
use crate::adopt::Adoptable;
use crate::backing::Backing;
use crate::copy_on_write::CopyOnWrite;
use crate::error::{CreateError, FreezeError};
use crate::os::{self, Access, MoveSource};

impl SegmentMut {
    /// Does the same as [`freeze`](Self::freeze), but the memory stays at its address in this process, where it may be written further:
    /// as private copies of its pages, which no other process sees. No byte is copied before that. On other systems than Linux it is an error.
    ///
    /// It is for programs in which other code has the address, such as an array of NumPy that was built in shared memory.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if cfg!(target_os = "linux") {
    /// use shm_buffers::{Backing, SegmentMut};
    ///
    /// let mut segment = SegmentMut::create(&Backing::Anonymous, 5)?;
    /// segment.copy_from_slice(b"hello");
    /// let address = segment.as_ptr();
    /// let (segment, mut mine) = segment.freeze_in_place().map_err(|(error, _)| error)?;
    /// assert_eq!(mine.as_ptr(), address);
    /// mine[0] = b'j';
    /// assert_eq!((&mine[..], &segment[..]), (&b"jello"[..], &b"hello"[..]));
    /// # } Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`freeze`](Self::freeze), with the memory.
    #[expect(clippy::result_large_err, reason = "the memory is given back")]
    pub fn freeze_in_place(self) -> Result<(Segment, CopyOnWrite), (FreezeError, KeptMemory)> {
        let len = self.len;
        let failed = |step, source| FreezeError { step, len, source };
        #[cfg(target_os = "linux")]
        let remapped = self.mapping.become_private(self.store.file());
        #[cfg(not(target_os = "linux"))]
        let remapped = Err(std::io::ErrorKind::Unsupported.into());
        if let Err(source) = remapped {
            return Err((failed("map privately", source), KeptMemory::Shared(self)));
        }
        let sealed = self.store.seal(Access::ReadOnly);
        let sealed = sealed.map_err(|source| failed("seal", source)).and_then(|()| {
            let mapped = self.store.map(len, Access::ReadOnly);
            mapped.map_err(|source| failed("map read-only", source))
        });
        let Self { store, mapping, .. } = self;
        let mine = CopyOnWrite::from_mapping(mapping, len);
        match sealed {
            Ok(mapping) => Ok((Segment::new(Origin::Created(store), mapping, len), mine)),
            Err(error) => Err((error, KeptMemory::Private(mine))),
        }
    }

    /// Creates a segment for tensors of which some are adopted: less memory suffices.
    pub(crate) fn create_for_adoption(
        backing: &Backing,
        len: usize,
        adopted: &[(usize, Adoptable)],
    ) -> Result<Self, CreateError> {
        #[cfg(target_os = "linux")]
        {
            let pages = adopted
                .iter()
                .filter_map(|(_, memory)| Some(&memory.bytes()[memory.whole_pages()?]));
            let mut releasable = || os::releasable(&mut pages.clone());
            let mut source = MoveSource {
                window: crate::adopt::WINDOW as u64,
                releasable: &mut releasable,
            };
            Self::create_for_move(backing, len, &mut source)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = adopted;
            Self::create(backing, len)
        }
    }

    /// Writes memory to offsets from `start`, and makes it a view of this segment where that is possible. Returns the bytes for which it
    /// was.
    pub(crate) fn adopt_all(
        &mut self,
        start: usize,
        adopted: Vec<(usize, Adoptable)>,
    ) -> Result<u64, CreateError> {
        #[cfg(target_os = "linux")]
        {
            let kind = self.store.kind();
            let maps = match adopted.is_empty() || kind != crate::BackingKind::Anonymous {
                true => String::new(),
                // Without that, everything is copied.
                false => std::fs::read_to_string("/proc/self/maps").unwrap_or_default(),
            };
            let mut bytes = 0;
            for (offset, mut memory) in adopted {
                let at = start + offset;
                let pages = memory.whole_pages();
                let pages = pages.filter(|pages| crate::adopt::is_plain(&maps, &memory, pages));
                let Some(pages) = pages else {
                    self.copy_at(at, memory.bytes());
                    continue;
                };
                self.copy_at(at, &memory.bytes()[..pages.start]);
                self.copy_at(at + pages.end, &memory.bytes()[pages.end..]);
                bytes += pages.len() as u64;
                let taken = memory.adopt(pages, self.store.file(), at);
                taken.map_err(|error| CreateError::os("adopt memory for", self.len, kind, error))?;
            }
            Ok(bytes)
        }
        #[cfg(not(target_os = "linux"))]
        {
            for (offset, memory) in adopted {
                self.copy_at(start + offset, memory.bytes());
            }
            Ok(0)
        }
    }
}

/// The memory of a segment that could not be [frozen in place](SegmentMut::freeze_in_place), still at its address.
#[derive(Debug)]
pub enum KeptMemory {
    /// As it was.
    Shared(SegmentMut),
    /// Only this process has it.
    Private(CopyOnWrite),
}

impl KeptMemory {
    /// Returns the address of the first byte.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match self {
            Self::Shared(segment) => segment.as_mut_ptr(),
            Self::Private(mapping) => CopyOnWrite::as_mut_ptr(mapping),
        }
    }
}

#[cfg(all(test, feature = "models", target_os = "linux"))]
mod tests {
    use std::ptr::NonNull;

    use super::*;
    use crate::{Dtype, Image, TensorWriter};

    const PAGE: usize = 4096;

    fn anonymous(len: usize) -> memmap2::MmapMut {
        let mut memory = memmap2::MmapMut::map_anon(len).expect("there is memory");
        for (at, byte) in memory.iter_mut().enumerate() {
            *byte = (at / 7) as u8;
        }
        memory
    }

    #[expect(unsafe_code, reason = "promises what `Adoptable` requires")]
    fn adoptable(memory: &mut [u8]) -> Adoptable {
        let (start, len) = (NonNull::from(&mut *memory).cast(), memory.len());
        // SAFETY: the memory is that of a mapping of the test, which does not use it while the image is written, and only unmaps it.
        unsafe { Adoptable::new(start, len) }
    }

    #[test]
    fn adopted_memory_keeps_its_bytes_and_is_a_private_view_of_the_image() {
        for (from, to) in [
            (0, 2 << 20),
            (16, (20 << 20) + 100),
            (4095, (9 << 20) - 1),
            (1, 100),
            (10, 10),
        ] {
            let mut memory = anonymous(21 << 20);
            let expected = memory.to_vec();
            let mut writer = TensorWriter::new();
            writer.add("small", Dtype::U8, &[3], b"abc").expect("it fits");
            let bytes = &mut memory[from..to];
            let len = bytes.len();
            writer
                .add_adopted("large", Dtype::U8, &[len], adoptable(bytes))
                .expect("it fits");
            writer.add("last", Dtype::U8, &[1], b"d").expect("it fits");
            let (image, adopted) = writer
                .write_adopting(&Backing::Anonymous)
                .expect("there is memory");
            let whole = (to / PAGE * PAGE).saturating_sub(from.next_multiple_of(PAGE));
            let expected_bytes = if whole >= 1 << 20 { whole as u64 } else { 0 };
            assert_eq!(adopted, expected_bytes, "{from}..{to}");
            assert!(memory[..] == expected, "it has its bytes");
            memory[from..to].fill(9);
            let tensors = Image::attach(&image.handle().expect("it has one"))
                .expect("it attaches")
                .tensors()
                .expect("it is intact");
            let bytes = |name: &str| tensors.buffer::<u8>(name).expect("it is there");
            assert!(bytes("large")[..] == expected[from..to], "writes stay private");
            assert_eq!(
                (&bytes("small")[..], &bytes("last")[..]),
                (&b"abc"[..], &b"d"[..])
            );
            drop((image, tensors));
            assert!(
                memory[from..to].iter().all(|byte| *byte == 9),
                "it outlives the image"
            );
        }
    }

    #[test]
    fn memory_of_files_is_copied_and_adopted_memory_can_be_adopted_again() {
        let file = tempfile::tempfile().expect("there is a directory for it");
        file.set_len(4 << 20).expect("there is room");
        let options = memmap2::MmapOptions::new();
        #[expect(unsafe_code, reason = "maps a file")]
        // SAFETY: no other process has the file.
        let mut mapped = unsafe { options.map_copy(&file) }.expect("it maps");
        let mut plain = anonymous(4 << 20);
        for round in 0..3 {
            let mut writer = TensorWriter::new();
            let shape = [4 << 20];
            let add = writer.add_adopted("mapped", Dtype::U8, &shape, adoptable(&mut mapped));
            add.expect("it fits");
            let add = writer.add_adopted("plain", Dtype::U8, &shape, adoptable(&mut plain));
            add.expect("it fits");
            let (_image, adopted) = writer
                .write_adopting(&Backing::Anonymous)
                .expect("there is memory");
            assert_eq!(adopted, 4 << 20, "round {round}");
            plain[round * PAGE] = 3;
        }
        assert_eq!([plain[0], plain[PAGE], plain[2 * PAGE], plain[7]], [3, 3, 3, 1]);
    }

    #[test]
    fn a_segment_that_is_frozen_in_place_keeps_its_address() {
        let mut segment = SegmentMut::create(&Backing::Anonymous, 100_000).expect("there is memory");
        segment.fill(5);
        let address = segment.as_ptr();
        let (segment, mut mine) = segment.freeze_in_place().expect("it freezes");
        assert_eq!(mine.as_ptr(), address);
        mine[1..].fill(6);
        let theirs = Segment::attach(&segment.handle().expect("it has one")).expect("it attaches");
        assert!(theirs.iter().all(|byte| *byte == 5), "{:?}", &theirs[..3]);
        drop((segment, theirs));
        assert_eq!((mine[0], mine[99_999]), (5, 6));
    }
}
