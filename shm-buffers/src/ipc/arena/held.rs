//! [`HeldBlock`]: a block that is copied when its bytes are looked at, and not before.
#![allow(unsafe_code, reason = "copies into memory that is not initialized")]

use std::fmt;
use std::mem::MaybeUninit;
use std::slice;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Block, BlockError, BlockReader, words_of};
use crate::ipc::layout::Span;
use crate::ipc::region::Region;
use crate::ipc::words::Words;

/// The elements of a private copy, whose alignment it has.
type Unit = u128;

/// A block of an arena whose bytes are not copied yet. Cheap to clone: all clones are the same block.
///
/// The first call of [`bytes`](Self::bytes) copies the block into private memory, each byte once; from then on the arena is not
/// accessed. The block must not be released to the writer before [`is_released`](Self::is_released).
#[derive(Clone)]
pub struct HeldBlock(Arc<Held>);

struct Held {
    len: usize,
    /// Where the bytes are, until they are copied.
    source: Mutex<Option<(Region, Span, Block)>>,
    copy: OnceLock<Vec<Unit>>,
}

impl BlockReader {
    /// Returns `block` without copying it.
    ///
    /// # Errors
    /// [`BlockError::Impossible`] or [`BlockError::Memory`].
    pub fn hold(&mut self, block: Block) -> Result<HeldBlock, BlockError> {
        let len = self.check(block)?;
        Ok(HeldBlock(Arc::new(Held {
            len,
            source: Mutex::new(Some((self.region.clone(), self.span, block))),
            copy: OnceLock::new(),
        })))
    }
}

impl HeldBlock {
    /// The alignment of [`bytes`](Self::bytes).
    pub const ALIGN: usize = align_of::<Unit>();

    /// Returns the number of bytes. It is never 0.
    #[expect(clippy::len_without_is_empty, reason = "no block is empty")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Returns the bytes, aligned to [`ALIGN`](Self::ALIGN). The first call copies them. They are the same in every call, whatever the writer does.
    pub fn bytes(&self) -> &[u8] {
        let copy = self.0.copy.get_or_init(|| {
            let mut source = self.0.source.lock().unwrap_or_else(PoisonError::into_inner);
            let mut copy = Vec::with_capacity(self.0.len.div_ceil(size_of::<Unit>()));
            if let Some((region, span, block)) = source.take() {
                // `hold` has checked the block.
                copy_words(
                    words_of(&region, span, block).unwrap_or_default().into(),
                    self.0.len,
                    &mut copy,
                );
            }
            copy
        });
        // SAFETY: `copy` has at least `len` initialized bytes: `copy_words` appends that many. They have no alignment, and are
        // borrowed from `self`, whose copy is never changed.
        unsafe { slice::from_raw_parts(copy.as_ptr().cast(), self.0.len.min(size_of_val(&**copy))) }
    }

    /// Returns whether the bytes of the arena are not needed any more: they were copied, or this is the last clone.
    pub fn is_released(&mut self) -> bool {
        self.0.copy.get().is_some() || Arc::get_mut(&mut self.0).is_some()
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
            .field("len", &self.0.len)
            .field("copied", &self.0.copy.get().is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::BlockWriter;
    use crate::ipc::layout::Layout;

    fn held(bytes: &[u8]) -> (BlockWriter, HeldBlock) {
        let mut layout = Layout::new();
        let span = layout.arena(1 << 16);
        let region = Region::on_heap(layout.byte_len());
        let mut writer = BlockWriter::new(&region, span);
        let block = writer.next_block(bytes.len()).expect("there is space");
        writer.write(block, bytes).expect("it is the next block");
        let held = BlockReader::new(&region, span).hold(block);
        (writer, held.expect("it was written"))
    }

    #[test]
    fn bytes_are_copied_at_the_first_look_only() {
        for len in [1, 15, 16, 17, 5000] {
            let sent: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let (mut writer, held) = held(&sent);
            let clone = held.clone();
            assert_eq!(held.bytes(), sent, "{len}");
            writer.mark_released(1).expect("it was written");
            let block = writer.next_block(sent.len()).expect("there is space");
            writer
                .write(block, &vec![0; sent.len()])
                .expect("it is the next block");
            assert_eq!(clone.bytes(), sent, "{len}");
            assert!(std::ptr::eq(clone.bytes(), held.bytes()));
            assert!(held.bytes().as_ptr().cast::<Unit>().is_aligned());
        }
    }

    #[test]
    fn a_block_is_released_by_a_look_or_by_the_last_other_clone() {
        let (_writer, mut mine) = held(&[7; 100]);
        let other = mine.clone();
        assert!(!mine.is_released());
        drop(other);
        assert!(mine.is_released());
        let (_writer, mut mine) = held(&[7; 100]);
        let other = mine.clone();
        assert_eq!(other.bytes(), [7; 100]);
        assert!(mine.is_released());
    }

    #[test]
    fn impossible_blocks_are_not_held() {
        let mut layout = Layout::new();
        let span = layout.arena(1 << 12);
        let region = Region::on_heap(layout.byte_len());
        let mut reader = BlockReader::new(&region, span);
        for (offset, len) in [(0, 0), (1, 8), (0, 4097), (4096, 1), (u64::MAX - 127, 128)] {
            reader.hold(Block { offset, len }).expect_err("impossible");
        }
    }
}
