//! [`Region`]: memory that several processes write, reachable only as atomic words.

use std::sync::Arc;

use crate::layout::Span;
use crate::sync::AtomicU64;

/// Memory that a peer may write at any time: the home of rings and slots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Region(Arc<Memory>);

#[derive(Debug)]
enum Memory {
    Heap(Box<[AtomicU64]>),
}

impl Region {
    /// Zeroed memory of this process, `bytes` rounded up to whole words.
    pub fn on_heap(bytes: usize) -> Self {
        let words = bytes.div_ceil(size_of::<u64>());
        Self(Arc::new(Memory::Heap(
            (0..words).map(|_| AtomicU64::new(0)).collect(),
        )))
    }

    #[inline]
    pub(crate) fn span(&self, span: Span) -> &[AtomicU64] {
        &self.words()[span.start..span.start + span.words]
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        match &*self.0 {
            Memory::Heap(words) => words,
        }
    }
}
