//! [`HeldBlock`]: a block whose bytes stay in the arena until they are looked at, or longer.
#![allow(
    unsafe_code,
    reason = "copies into memory that is not initialized, and reads the memory of peers that are trusted"
)]

use std::collections::VecDeque;
use std::fmt;
use std::mem::MaybeUninit;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::events::Event;
use super::{ArenaSpan, Block, BlockError, BlockReader, words_of};
use crate::ipc::region::Region;
use crate::ipc::words::Words;

/// The elements of a private copy, whose alignment it has.
type Unit = u128;

/// A block of an arena whose bytes are not copied yet. Cheap to clone: all clones are the same block.
///
/// The first call of [`bytes`](Self::bytes) copies the block into private memory, each byte once; from then on the arena is not
/// accessed. Then, or when the last clone is dropped, the block can be [released](BlockReader::release_held).
#[derive(Clone)]
pub struct HeldBlock(Arc<Held>);

struct Held {
    block: Block,
    access: Access,
    freed: Arc<Freed>,
}

enum Access {
    /// In a copy that is made once.
    Copy {
        /// Where the bytes are, until they are copied.
        source: Mutex<Option<(Region, ArenaSpan)>>,
        copy: OnceLock<Vec<Unit>>,
    },
    /// In the arena, where no process writes them.
    InPlace(Region, ArenaSpan),
}

/// The blocks of a reader that are held.
#[derive(Debug, Default)]
pub(super) struct HeldBlocks {
    /// Those that can be copied, oldest first. Some may have been copied or dropped.
    copyable: VecDeque<Weak<Held>>,
    count: usize,
    /// How many of them are read in place.
    in_place: usize,
    bytes: u64,
    freed: Arc<Freed>,
}

/// The held blocks that are not needed any more.
#[derive(Default)]
struct Freed {
    is_any: AtomicBool,
    blocks: Mutex<Vec<FreedBlock>>,
}

struct FreedBlock {
    block: Block,
    in_place: bool,
}

impl Freed {
    fn push(&self, block: Block, in_place: bool) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push(FreedBlock { block, in_place });
        self.is_any.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> Vec<FreedBlock> {
        // A block that is pushed at the same time is found by the next call.
        if !self.is_any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_any.store(false, Ordering::Relaxed);
        std::mem::take(&mut blocks)
    }
}

impl BlockReader {
    /// Returns `block` without copying it.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] or [`BlockError::Memory`].
    pub fn hold(&mut self, block: Block) -> Result<HeldBlock, BlockError> {
        self.check(block)?;
        let held = self.held.add(
            block,
            Access::Copy {
                source: Mutex::new(Some((self.region.clone(), self.span))),
                copy: OnceLock::new(),
            },
        );
        let copyable = &mut self.held.copyable;
        if copyable.len() > 2 * self.held.count + 64 {
            copyable.retain(|held| held.upgrade().is_some_and(|held| !held.is_copied()));
        }
        copyable.push_back(Arc::downgrade(&held.0));
        self.events.push(Event::Taken(block.offset));
        Ok(held)
    }

    /// Returns `block`, whose bytes are read where the writer has put them. They are never copied, unless the region is on the heap
    /// and not aligned.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] or [`BlockError::Memory`].
    ///
    /// # Safety
    /// Until the block is released, no process writes its bytes. A [`BlockWriter`](super::BlockWriter) does not.
    pub unsafe fn hold_in_place(&mut self, block: Block) -> Result<HeldBlock, BlockError> {
        self.check(block)?;
        let words = words_of(&self.region, self.span, block).unwrap_or_default();
        if !words.as_ptr().cast::<Unit>().is_aligned() {
            return self.hold(block);
        }
        let access = Access::InPlace(self.region.clone(), self.span);
        self.held.in_place += 1;
        self.publish_in_place();
        self.events.push(Event::Taken(block.offset));
        Ok(self.held.add(block, access))
    }

    fn publish_in_place(&self) {
        let count = self.held.in_place as u64;
        self.events.in_place().store(count, Ordering::Release);
    }

    /// [Releases](Self::release) the held blocks that were copied or dropped.
    pub fn release_held(&mut self) {
        let freed = self.held.freed.take();
        let in_place = freed.iter().filter(|freed| freed.in_place).count();
        if in_place > 0 {
            self.held.in_place -= in_place;
            // First, so that the writer never takes all blocks in flight for some that stay.
            self.publish_in_place();
        }
        for FreedBlock { block, .. } in freed {
            self.held.count -= 1;
            self.held.bytes -= block.len;
            self.release(block);
        }
    }

    /// Copies the oldest block that is held and can be copied; [`release_held`](Self::release_held) then releases it. Returns
    /// whether there was one.
    pub fn copy_oldest_held(&mut self) -> bool {
        self.copy_held(VecDeque::pop_front)
    }

    /// Copies the newest one instead: it is more likely to be in a cache.
    pub fn copy_newest_held(&mut self) -> bool {
        self.copy_held(VecDeque::pop_back)
    }

    fn copy_held(&mut self, next: impl Fn(&mut VecDeque<Weak<Held>>) -> Option<Weak<Held>>) -> bool {
        while let Some(held) = next(&mut self.held.copyable) {
            if let Some(held) = held.upgrade()
                && !held.is_copied()
            {
                let _ = HeldBlock(held).bytes();
                return true;
            }
        }
        false
    }

    /// Returns the number of blocks that are held and were not [released](Self::release_held).
    pub fn count_held(&self) -> usize {
        self.held.count
    }

    /// Returns how many of these blocks are read [in place](Self::hold_in_place).
    pub fn count_in_place(&self) -> usize {
        self.held.in_place
    }

    /// Returns the number of bytes of these blocks.
    pub fn held_bytes(&self) -> u64 {
        self.held.bytes
    }

    /// Returns whether more than half of the arena is held, with another block of `more` bytes: of its bytes, or of the blocks that it
    /// can have at a time.
    pub fn holds_half_with(&self, more: u64) -> bool {
        self.held.bytes + more > self.span.capacity() / 2
            || self.held.count + usize::from(more > 0) > self.events.max_blocks() / 2
    }
}

impl HeldBlocks {
    fn add(&mut self, block: Block, access: Access) -> HeldBlock {
        self.count += 1;
        self.bytes += block.len;
        HeldBlock(Arc::new(Held {
            block,
            access,
            freed: self.freed.clone(),
        }))
    }
}

impl HeldBlock {
    /// The alignment of [`bytes`](Self::bytes).
    pub const ALIGN: usize = align_of::<Unit>();

    /// Returns the number of bytes. It is never 0.
    #[expect(clippy::len_without_is_empty, reason = "no block is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the bytes, aligned to [`ALIGN`](Self::ALIGN). The first call copies them, unless they are read
    /// [in place](BlockReader::hold_in_place). They are the same in every call, whatever the writer does.
    pub fn bytes(&self) -> &[u8] {
        let held = &*self.0;
        match &held.access {
            Access::Copy { source, copy } => {
                let copy = copy.get_or_init(|| held.copy(source));
                // SAFETY: `copy` has at least `len` initialized bytes: `copy_words` appends that many. They have no alignment, and
                // are borrowed from `self`, whose copy is never changed.
                unsafe { slice::from_raw_parts(copy.as_ptr().cast(), held.len().min(size_of_val(&**copy))) }
            }
            Access::InPlace(region, span) => {
                let words = words_of(region, *span, held.block).unwrap_or_default();
                // SAFETY: these are the bytes of `words`, which has at least `len` of them (`words_of`), initialized since the
                // region is. `region` lives as long as `self`. By the contract of `hold_in_place`, they are not written until the
                // block is released, and that happens after the last clone of this block is dropped (`Held::drop`).
                unsafe { slice::from_raw_parts(words.as_ptr().cast(), held.len().min(size_of_val(words))) }
            }
        }
    }
}

impl Held {
    /// Returns the number of bytes. The reader has checked that the arena has them.
    fn len(&self) -> usize {
        self.block.len as usize
    }

    fn is_copied(&self) -> bool {
        matches!(&self.access, Access::Copy { copy, .. } if copy.get().is_some())
    }

    fn copy(&self, source: &Mutex<Option<(Region, ArenaSpan)>>) -> Vec<Unit> {
        crate::expect_blocks(self.len());
        let mut copy = Vec::with_capacity(self.len().div_ceil(size_of::<Unit>()));
        crate::prefer_huge_pages(&mut copy);
        let source = source.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((region, span)) = source {
            let words = words_of(&region, span, self.block).unwrap_or_default();
            crate::copy_into_new(self.len(), || copy_words(words.into(), self.len(), &mut copy));
            self.freed.push(self.block, false);
        }
        copy
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match &self.access {
            Access::Copy { copy, .. } if copy.get().is_some() => {}
            Access::Copy { .. } => self.freed.push(self.block, false),
            Access::InPlace(..) => self.freed.push(self.block, true),
        }
    }
}

/// Appends the first `len` bytes of `words` to the empty `copy`, and zeros up to a whole unit. The caller has reserved memory for them.
fn copy_words(words: Words<'_>, len: usize, copy: &mut Vec<Unit>) {
    let units = len.div_ceil(size_of::<Unit>());
    let spare = &mut copy.spare_capacity_mut()[..units];
    // SAFETY: this is the memory of these units, borrowed as before. Bytes have no alignment, and may be uninitialized.
    let bytes: &mut [MaybeUninit<u8>] =
        unsafe { slice::from_raw_parts_mut(spare.as_mut_ptr().cast(), size_of_val(spare)) };
    let (bytes, padding) = bytes.split_at_mut(len);
    let read = words.read(bytes);
    for byte in bytes[read..].iter_mut().chain(padding) {
        byte.write(0);
    }
    // SAFETY: all bytes of the units were initialized: the first `read` by `read`, the others by the loop. Any bytes are a number.
    unsafe { copy.set_len(units) };
}

impl fmt::Debug for HeldBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldBlock")
            .field("len", &self.len())
            .field("copied", &self.0.is_copied())
            .finish()
    }
}

impl fmt::Debug for Freed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Freed")
            .field("is_any", &self.is_any)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backing;
    use crate::arena::BlockWriter;
    use crate::ipc::layout::Layout;

    fn ends() -> (BlockWriter, BlockReader) {
        let mut layout = Layout::new();
        let span = layout.arena(1 << 16);
        let region = Region::create(&Backing::Anonymous, layout.byte_len()).expect("there is memory");
        (BlockWriter::new(&region, span), BlockReader::new(&region, span))
    }

    fn write(writer: &mut BlockWriter, bytes: &[u8]) -> Block {
        let block = writer.next_block(bytes.len()).expect("there is space");
        writer.write(block, bytes).expect("it is the next block");
        block
    }

    fn release(reader: &mut BlockReader, writer: &mut BlockWriter) {
        reader.release_held();
        writer.collect().expect("they were in flight");
    }

    #[test]
    fn bytes_are_copied_at_the_first_look_only() {
        for len in [1, 15, 16, 17, 5000] {
            let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let (mut writer, mut reader) = ends();
            let block = write(&mut writer, &sent);
            let held = reader.hold(block).expect("it was written");
            let clone = held.clone();
            assert_eq!(held.bytes(), sent, "{len}");
            release(&mut reader, &mut writer);
            assert_eq!(write(&mut writer, &vec![0; sent.len()]), block);
            assert_eq!(clone.bytes(), sent, "{len}");
            assert!(std::ptr::eq(clone.bytes(), held.bytes()));
            assert!(held.bytes().as_ptr().cast::<Unit>().is_aligned());
        }
    }

    #[test]
    fn a_block_is_released_once_by_a_look_or_by_the_last_clone() {
        let (mut writer, mut reader) = ends();
        for looks in [false, true] {
            let block = write(&mut writer, &[7; 100]);
            let held = reader.hold(block).expect("it was written");
            assert_eq!((reader.count_held(), reader.held_bytes()), (1, 100));
            let other = held.clone();
            drop(held);
            assert_eq!((writer.untaken(), writer.untaken_bytes()), (1, 100));
            release(&mut reader, &mut writer);
            assert_eq!((writer.untaken(), writer.in_flight()), (0, 1));
            if looks {
                assert_eq!(other.bytes(), [7; 100]);
                release(&mut reader, &mut writer);
                assert_eq!(writer.in_flight(), 0);
            }
            drop(other);
            release(&mut reader, &mut writer);
            assert_eq!(
                (writer.in_flight(), reader.count_held(), reader.held_bytes()),
                (0, 0, 0)
            );
        }
        assert_eq!(reader.count_released(), 2);
    }

    #[test]
    fn blocks_are_released_while_older_ones_are_held() {
        let (mut writer, mut reader) = ends();
        let old = write(&mut writer, &[1; 1000]);
        let old = reader.hold(old).expect("it was written");
        for round in 0..1000 {
            let block = write(&mut writer, &[2; 1000]);
            let held = reader.hold(block).expect("it was written");
            if round % 2 == 0 {
                assert_eq!(held.bytes(), [2; 1000]);
            }
            drop(held);
            release(&mut reader, &mut writer);
            assert_eq!((writer.in_flight(), reader.count_held()), (1, 1));
            assert!(reader.held.copyable.len() < 100, "{:?}", reader.held);
        }
        assert!(reader.copy_oldest_held() && !reader.copy_oldest_held());
        release(&mut reader, &mut writer);
        assert_eq!(writer.in_flight(), 0);
        assert_eq!(old.bytes(), [1; 1000]);
    }

    #[test]
    fn a_block_in_place_is_released_when_it_is_dropped() {
        let (mut writer, mut reader) = ends();
        let block = write(&mut writer, &[7; 100]);
        // SAFETY: the writer writes no block that is in flight.
        let held = unsafe { reader.hold_in_place(block) }.expect("it was written");
        assert_eq!(held.bytes(), [7; 100]);
        assert!(!reader.copy_oldest_held());
        release(&mut reader, &mut writer);
        assert_eq!((writer.in_flight(), reader.held_bytes()), (1, 100));
        assert_eq!((reader.count_in_place(), writer.count_in_place()), (1, 1));
        assert_eq!((writer.untaken(), writer.untaken_bytes()), (0, 0));
        drop(held);
        release(&mut reader, &mut writer);
        assert_eq!((writer.in_flight(), reader.held_bytes()), (0, 0));
        assert_eq!((reader.count_in_place(), writer.count_in_place()), (0, 0));
    }

    #[test]
    fn half_of_an_arena_is_half_of_its_bytes_or_of_its_blocks() {
        let (mut writer, mut reader) = ends();
        assert!(!reader.holds_half_with(1 << 15) && reader.holds_half_with((1 << 15) + 1));
        let mut held = Vec::new();
        while !reader.holds_half_with(1) {
            let block = write(&mut writer, &[0]);
            held.push(reader.hold(block).expect("it was written"));
        }
        assert_eq!(held.len(), writer.max_in_flight() / 2);
        assert!(!reader.holds_half_with(0));
    }

    #[test]
    fn held_blocks_outlive_their_reader() {
        let (mut writer, mut reader) = ends();
        let blocks = [1, 2].map(|content| write(&mut writer, &[content; 100]));
        let copied = reader.hold(blocks[0]).expect("it was written");
        // SAFETY: the writer is dropped.
        let in_place = unsafe { reader.hold_in_place(blocks[1]) }.expect("it was written");
        drop((writer, reader));
        assert_eq!((copied.bytes(), in_place.bytes()), (&[1; 100][..], &[2; 100][..]));
    }

    #[test]
    fn impossible_blocks_are_not_held() {
        let (_, mut reader) = ends();
        for (offset, len) in [(0, 0), (1, 8), (0, 65_537), (65_536, 1), (u64::MAX - 127, 128)] {
            reader.hold(Block { offset, len }).expect_err("impossible");
        }
        assert_eq!(reader.count_held(), 0);
    }
}
