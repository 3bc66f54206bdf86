//! A batch: encoded tasks on their way into the pool.

use crate::payload::{Large, MAX_INLINE, Payload};
use crate::protocol::Tag;

/// Memory that an emptied batch keeps for the next tasks, at most.
const KEEP: usize = 1 << 20;

/// Encoded tasks, first in, first out, in one buffer that is used again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    tasks: Vec<Entry>,
    next: usize,
    /// Bytes of the large ones, which are elsewhere.
    large: usize,
}

#[derive(Debug)]
struct Entry {
    index: u64,
    /// In `bytes`; it begins where the one before it ends.
    end: usize,
    /// Boxed, because most have none.
    large: Option<Box<Large>>,
}

/// A task that is being written.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// Where it is encoded to, behind what is there.
    pub(crate) bytes: &'a mut Vec<u8>,
    large: Option<Result<Box<Large>, String>>,
}

impl Draft<'_> {
    /// Writes a task that lies in memory as it is: a large one is copied to where it stays.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        match bytes.len() {
            ..=MAX_INLINE => self.bytes.extend_from_slice(bytes),
            _ => self.large = Some(Large::copied(bytes).map(Box::new)),
        }
    }
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.tasks.len() - self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the tasks that were added since it was empty.
    pub(crate) fn bytes(&self) -> usize {
        match self.is_empty() {
            true => 0,
            false => self.bytes.len() + self.large,
        }
    }

    /// Adds task `index`, which `encode` writes. When that fails, nothing is added.
    #[inline]
    pub(crate) fn push(
        &mut self,
        index: u64,
        encode: impl FnOnce(&mut Draft<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.is_empty() {
            self.tasks.clear();
            self.next = 0;
            self.large = 0;
        }
        let start = self.tasks.last().map_or(0, |last| last.end);
        // An `encode` that panicked may have left something.
        self.bytes.truncate(start);
        self.bytes.push(Tag::Inline as u8);
        let mut draft = Draft {
            bytes: &mut self.bytes,
            large: None,
        };
        let written = encode(&mut draft);
        let mut large = draft.large;
        if written.is_ok() && large.is_none() && self.bytes.len() - start > MAX_INLINE + 1 {
            // Of its own, without a copy, if it is alone here.
            let made = match start {
                0 => Ok(Large::new(std::mem::take(&mut self.bytes), 1)),
                _ => Large::copied(&self.bytes[start + 1..]),
            };
            large = Some(made.map(Box::new));
        }
        let large = written.and_then(|()| large.transpose());
        let large = large.inspect_err(|_| self.bytes.truncate(start))?;
        if let Some(large) = &large {
            self.bytes.truncate(start);
            self.bytes.shrink_to(KEEP);
            self.large += large.len();
        }
        let end = self.bytes.len();
        self.tasks.push(Entry { index, end, large });
        Ok(())
    }

    pub(crate) fn front(&self) -> Option<(u64, Payload<'_>)> {
        let Entry { index, end, large } = self.tasks.get(self.next)?;
        let start = self.start();
        let payload = match large {
            Some(large) => Payload::Large(large),
            None => Payload::Inline(&self.bytes[start..*end]),
        };
        Some((*index, payload))
    }

    pub(crate) fn pop(&mut self) {
        debug_assert!(!self.is_empty(), "popped what is not there");
        // Whoever was given it keeps it alive.
        self.tasks[self.next].large = None;
        self.next += 1;
    }

    /// The tasks at the front, `most` at most, up to the first large one: all that can be sent in one go.
    #[inline]
    pub(crate) fn run(&self, most: usize) -> Run<'_> {
        let waiting = &self.tasks[self.next..];
        let small = waiting.iter().take(most).take_while(|task| task.large.is_none());
        Run {
            tasks: &waiting[..small.count()],
            bytes: &self.bytes,
            start: self.start(),
        }
    }

    /// Removes so many tasks of a run.
    pub(crate) fn pop_run(&mut self, tasks: usize) {
        debug_assert!(tasks <= self.len(), "popped what is not there");
        self.next += tasks;
    }

    /// Where the front one's bytes begin.
    fn start(&self) -> usize {
        self.next
            .checked_sub(1)
            .map_or(0, |before| self.tasks[before].end)
    }
}

/// Small tasks that follow one another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    tasks: &'a [Entry],
    bytes: &'a [u8],
    start: usize,
}

impl<'a> Run<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Their frames, in order.
    #[inline]
    pub(crate) fn frames(self) -> impl Iterator<Item = &'a [u8]> {
        let Self { tasks, bytes, start } = self;
        tasks.iter().scan(start, move |start, task| {
            let frame = &bytes[*start..task.end];
            *start = task.end;
            Some(frame)
        })
    }

    /// The first `tasks` of them.
    pub(crate) fn first(self, tasks: usize) -> Self {
        Self {
            tasks: &self.tasks[..tasks],
            ..self
        }
    }

    /// All of their frames, as they follow one another.
    pub(crate) fn bytes(self) -> &'a [u8] {
        let end = self.tasks.last().map_or(self.start, |last| last.end);
        &self.bytes[self.start..end]
    }

    /// Their indices, and the lengths of their frames.
    #[inline]
    pub(crate) fn entries(self) -> impl Iterator<Item = (u64, u32)> {
        let lens = self.frames().map(|frame| frame.len() as u32);
        self.tasks.iter().map(|task| task.index).zip(lens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(batch: &Batch) -> Option<(u64, Vec<u8>)> {
        batch.front().map(|(index, payload)| match payload {
            Payload::Inline(frame) => (index, frame[1..].to_vec()),
            Payload::Large(large) => (index, vec![0; large.len()]),
        })
    }

    fn put(bytes: &[u8]) -> impl FnOnce(&mut Draft<'_>) -> Result<(), String> {
        |draft| {
            draft.bytes.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn first_in_first_out_and_failures_leave_no_trace() {
        let mut batch = Batch::default();
        for round in 0..3u64 {
            assert_eq!(batch.push(round, put(&[1, 2, 3])), Ok(()));
            let fail = |draft: &mut Draft<'_>| {
                draft.bytes.push(9);
                Err("no".to_owned())
            };
            assert_eq!(batch.push(7, fail), Err("no".to_owned()));
            assert_eq!(batch.push(round + 10, put(&[])), Ok(()));
            assert_eq!(front(&batch), Some((round, vec![1, 2, 3])));
            batch.pop();
            assert_eq!(front(&batch), Some((round + 10, vec![])));
            batch.pop();
            assert!(batch.is_empty() && batch.front().is_none());
        }
    }

    #[test]
    fn an_encoder_that_panics_leaves_no_trace() {
        let mut batch = Batch::default();
        batch.push(0, put(&[1])).unwrap();
        let panics = |draft: &mut Draft<'_>| {
            draft.bytes.extend([7; 100]);
            std::panic::resume_unwind(Box::new(()))
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| batch.push(1, panics))).unwrap_err();
        batch.push(2, put(&[3])).unwrap();
        batch.pop();
        assert_eq!(front(&batch), Some((2, vec![3])));
    }

    #[test]
    fn large_tasks_are_not_in_the_buffer() {
        let mut batch = Batch::default();
        let sizes = [0, 1, MAX_INLINE, MAX_INLINE + 1, 2 * KEEP, 5];
        for (index, size) in (0..).zip(sizes) {
            let bytes = vec![0; size];
            let as_it_is = |draft: &mut Draft<'_>| {
                draft.put(&bytes);
                Ok(())
            };
            match index % 2 {
                0 => batch.push(index, put(&bytes)).unwrap(),
                _ => batch.push(index, as_it_is).unwrap(),
            }
        }
        let small = sizes.iter().filter(|size| **size <= MAX_INLINE).count();
        assert_eq!(batch.bytes(), sizes.iter().sum::<usize>() + small);
        assert!(batch.bytes.capacity() <= KEEP);
        for (index, size) in (0..).zip(sizes) {
            let is_large = matches!(batch.front(), Some((_, Payload::Large(_))));
            assert_eq!(is_large, size > MAX_INLINE);
            assert_eq!(front(&batch), Some((index, vec![0; size])));
            batch.pop();
        }
        assert_eq!(batch.bytes(), 0);
    }

    #[test]
    fn a_run_is_the_small_tasks_at_the_front() {
        let mut batch = Batch::default();
        let sizes = [3, 0, 2, MAX_INLINE + 1, 1];
        for (index, size) in (0..).zip(sizes) {
            batch.push(index, put(&vec![index as u8; size])).unwrap();
        }
        batch.pop();
        let tag = Tag::Inline as u8;
        let run = batch.run(9);
        assert_eq!(run.frames().collect::<Vec<_>>(), [&[tag][..], &[tag, 2, 2]]);
        assert_eq!(run.bytes(), [tag, tag, 2, 2]);
        assert_eq!(run.entries().collect::<Vec<_>>(), [(1, 1), (2, 3)]);
        let first = run.first(1);
        assert_eq!((first.bytes(), first.entries().count()), (&[tag][..], 1));
        assert!(run.first(0).is_empty() && run.first(0).bytes().is_empty());
        assert_eq!(batch.run(1).entries().collect::<Vec<_>>(), [(1, 1)]);
        batch.pop_run(2);
        assert!(batch.run(9).is_empty(), "a large one comes next");
        batch.pop();
        assert_eq!(batch.run(9).entries().collect::<Vec<_>>(), [(4, 2)]);
        batch.pop_run(1);
        assert!(batch.is_empty() && batch.run(9).is_empty());
    }
}
