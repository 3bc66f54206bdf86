//! [`Chunks`]: tasks that travel to the workers in chunks.

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most tasks of a chunk.
const MOST: usize = 1 << 14;
/// The most tasks of a chunk if the number of tasks is unknown.
const MOST_OF_UNKNOWN: usize = 1 << 12;

/// Many tiny tasks that can be cut into chunks, for [`Invoker::map_chunks`](crate::Invoker::map_chunks) and
/// [`Invoker::reduce`](crate::Invoker::reduce): a range of integers, whose chunks are ranges of two numbers, or [`Items`], whose
/// chunks are vectors. A program may implement it for its own tasks, for example for parts of a file.
pub trait Chunks {
    /// A chunk, which is a task of the invoker.
    type Chunk: Serialize + DeserializeOwned + Send + 'static;

    /// Removes up to `most` tasks from the front, at least one. Returns `None` if no tasks remain. `most` is not zero.
    fn take_chunk(&mut self, most: usize) -> Option<Self::Chunk>;

    /// Returns the number of tasks that remain, if it is known.
    fn remaining(&self) -> Option<usize>;
}

/// The integers whose ranges are [`Chunks`]. The trait is sealed.
pub trait Integer:
    Serialize + DeserializeOwned + Copy + PartialOrd + Send + sealed::Sealed + 'static
{
    /// Returns the number that is `steps` above this one, or `end` if that is lower. This one is below `end`.
    #[doc(hidden)]
    fn up_to(self, steps: usize, end: Self) -> Self;

    /// Returns the number of steps to `end`, or `None` if a `usize` is too small for it.
    #[doc(hidden)]
    fn steps_to(self, end: Self) -> Option<usize>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl sealed::Sealed for $integer {}

        impl Integer for $integer {
            fn up_to(self, steps: usize, end: Self) -> Self {
                // The whole range of a small type may be shorter than `steps`.
                let steps = Self::try_from(steps).unwrap_or(Self::MAX);
                self.saturating_add(steps).min(end)
            }

            fn steps_to(self, end: Self) -> Option<usize> {
                usize::try_from((end as i128 - self as i128).max(0)).ok()
            }
        }
    )*};
}

integers! { u8 u16 u32 u64 usize i8 i16 i32 i64 isize }

// One implementation for all integers, so that the type of a literal range follows from the op.
impl<N: Integer> Chunks for Range<N> {
    type Chunk = Self;

    fn take_chunk(&mut self, most: usize) -> Option<Self> {
        if self.start >= self.end {
            return None;
        }
        let end = self.start.up_to(most, self.end);
        let chunk = self.start..end;
        self.start = end;
        Some(chunk)
    }

    fn remaining(&self) -> Option<usize> {
        self.start.steps_to(self.end)
    }
}

/// The items of any iterator, as [`Chunks`]. They are taken as workers have room for them.
///
/// ```
/// use invoker::{Executor, Invoker, Items};
///
/// let length = |_: &(), word: String| word.len();
/// let builder = Invoker::builder(length).fold(0, |sum, length| *sum += length).model(());
/// let invoker = builder.executor(Executor::Threads).build()?;
/// let words = "a few words".split(' ').map(str::to_owned);
/// assert_eq!(invoker.reduce(Items(words), |one, other| one + other)?, Some(9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Items<I>(
    /// The iterator.
    pub I,
);

impl<I: Iterator> Chunks for Items<I>
where
    I::Item: Serialize + DeserializeOwned + Send + 'static,
{
    type Chunk = Vec<I::Item>;

    fn take_chunk(&mut self, most: usize) -> Option<Vec<I::Item>> {
        let chunk: Vec<I::Item> = self.0.by_ref().take(most).collect();
        (!chunk.is_empty()).then_some(chunk)
    }

    fn remaining(&self) -> Option<usize> {
        let (low, high) = self.0.size_hint();
        high.filter(|high| *high == low)
    }
}

/// An iterator over chunks. Their size falls towards the end, so that workers finish at about the same time.
pub(crate) struct CutTasks<S> {
    tasks: S,
    workers: usize,
    taken: usize,
    /// The fewest tasks of a chunk, except for the last one.
    least: usize,
}

impl<S: Chunks> CutTasks<S> {
    pub(crate) fn new(tasks: S, workers: usize) -> Self {
        // The last chunk of a worker is a thousandth of its work: smaller ones would cost more than they balance.
        let all = tasks.remaining().unwrap_or(0);
        Self {
            least: (all / (1024 * workers)).clamp(1, MOST),
            taken: 0,
            tasks,
            workers,
        }
    }

    /// Returns the number of tasks of the next chunk.
    fn size(&self) -> usize {
        match self.tasks.remaining() {
            Some(remaining) => (remaining / (8 * self.workers)).clamp(self.least, MOST),
            // Tasks may be slow: chunks grow only as more of them are done.
            None => (self.taken / (8 * self.workers)).clamp(1, MOST_OF_UNKNOWN),
        }
    }
}

impl<S: Chunks> Iterator for CutTasks<S> {
    type Item = S::Chunk;

    fn next(&mut self) -> Option<S::Chunk> {
        let size = self.size();
        let chunk = self.tasks.take_chunk(size)?;
        self.taken = self.taken.saturating_add(size);
        Some(chunk)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.tasks.remaining() {
            Some(0) => (0, Some(0)),
            _ => (0, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_ranges_are_all_of_it_once_and_fall_in_size() {
        let chunks: Vec<_> = CutTasks::new(5..1_000_000_u64, 3).collect();
        assert_eq!(
            (chunks[0].clone(), chunks.last().map(|last| last.end)),
            (5..5 + MOST as u64, Some(1_000_000))
        );
        assert!(chunks.windows(2).all(|pair| pair[0].end == pair[1].start));
        let sizes: Vec<u64> = chunks.iter().map(|chunk| chunk.end - chunk.start).collect();
        assert!(sizes.is_sorted_by(|one, next| one >= next), "{sizes:?}");
        // The last chunk is the rest; the others are as small as they get.
        let least = 1_000_000 / (3 * 1024);
        let (last, others) = sizes.split_last().expect("many chunks");
        assert!(*last <= least && others.last() == Some(&least), "{sizes:?}");
        // Few tasks may be slow ones, so each is a chunk in the end.
        assert_eq!(CutTasks::new(0..100_u64, 3).last(), Some(99..100));
        for (range, count) in [
            (i8::MIN..i8::MAX, 255),
            (7..7, 0),
            (Range { start: 9, end: 3 }, 0),
        ] {
            assert_eq!(CutTasks::new(range.clone(), 1).flatten().count(), count);
            assert!(CutTasks::new(range.clone(), 1).flatten().eq(range));
        }
        assert_eq!((250..255_u8).take_chunk(1000), Some(250..255));
        assert_eq!((u64::MIN..u64::MAX).remaining(), Some(usize::MAX));
    }

    #[test]
    fn chunks_of_an_unknown_number_grow() {
        let items = Items((0..200_000_u32).filter(|n| n % 2 == 0));
        let chunks: Vec<Vec<u32>> = CutTasks::new(items, 1).collect();
        assert_eq!((chunks[0].len(), chunks[7].len()), (1, 1));
        assert!(chunks.iter().any(|chunk| chunk.len() == MOST_OF_UNKNOWN));
        assert!(chunks.into_iter().flatten().eq((0..200_000).step_by(2)));
    }
}
