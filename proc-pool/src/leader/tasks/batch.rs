//! [`Batch`]: encoded tasks on their way to the workers.

use std::ops::Range;

use shm_buffers::out_of_band::Sent;

use crate::wire::apart::{encode_apart, may_have_buffers};
use crate::wire::codec::Codec;
use crate::wire::native;
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::payload::{Large, MAX_INLINE, Payload};
use crate::wire::tags::Tag;

/// Maximum capacity in bytes that an emptied batch keeps for the next tasks.
const KEEP: usize = 1 << 20;

/// A queue of encoded tasks, in one reused buffer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    runs: Vec<BatchRun>,
    /// Index in `runs` of the front task's run, and how many tasks of that were removed.
    next: (usize, usize),
    /// Where the frames of the small tasks are in `bytes`.
    frames: Range<usize>,
    /// Number of tasks.
    len: usize,
    /// Total size of the large tasks, which have buffers of their own.
    large_bytes: usize,
}

/// Small tasks with consecutive indices and frames of the same length, one behind the other; or one large task.
#[derive(Debug)]
struct BatchRun {
    run: TaskRun,
    /// Boxed, because most tasks have none.
    large: Option<Box<Large>>,
}

/// Tasks with consecutive indices, whose frames have the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskRun {
    /// The index of the first task.
    pub(crate) index: u64,
    pub(crate) count: usize,
    /// The length of each frame; 0 for a large task.
    pub(crate) frame_len: usize,
}

impl TaskRun {
    /// Returns the run of one task.
    #[inline]
    pub(crate) fn one(index: u64, frame_len: usize) -> Self {
        let count = 1;
        Self {
            index,
            count,
            frame_len,
        }
    }

    /// Returns whether a task with this index, whose frame has this length, continues the run.
    #[inline]
    pub(crate) fn is_continued_by(&self, index: u64, frame_len: usize) -> bool {
        self.index + self.count as u64 == index && self.frame_len == frame_len
    }

    /// Returns the number of bytes of all frames.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.count * self.frame_len
    }

    /// Returns the run without its first `tasks` tasks.
    #[inline]
    pub(crate) fn behind(self, tasks: usize) -> Self {
        Self {
            index: self.index + tasks as u64,
            count: self.count - tasks,
            ..self
        }
    }
}

/// The destination of a task that is being encoded.
#[derive(Debug)]
pub(crate) struct TaskWriter<'a> {
    /// The buffer to which the encoded task is appended.
    pub(crate) bytes: &'a mut Vec<u8>,
    large: Option<Result<Box<Large>, String>>,
}

impl TaskWriter<'_> {
    /// Writes a task whose encoded form already exists. A large one is copied once, into a buffer of its own.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        match bytes.len() {
            ..=MAX_INLINE => self.bytes.extend_from_slice(bytes),
            _ => self.large = Some(Large::copied(bytes).map(Box::new)),
        }
    }

    /// Writes a task of bytes that is given away. The memory of a large vector is taken, others are copied.
    pub(crate) fn put_owned<T: AsRef<[u8]>>(&mut self, task: T) {
        match native::into_owned(task) {
            Ok(bytes) => self.give(bytes),
            Err(task) => self.put(task.as_ref()),
        }
    }

    /// Writes a task that is given away. A large one is not copied.
    #[inline]
    pub(crate) fn give(&mut self, bytes: OwnedBytes) {
        match bytes.len() {
            ..=MAX_INLINE => self.bytes.extend_from_slice(&bytes),
            _ => self.large = Some(Ok(Box::new(Large::new(bytes, 0)))),
        }
    }

    /// Encodes a task. With `APART`, its large buffers are left out, to travel apart.
    #[inline]
    pub(crate) fn encode<T, C: Codec<T>, const APART: bool>(&mut self, task: &T) -> Result<(), String> {
        if !APART || !may_have_buffers::<T>() {
            return C::encode(task, self.bytes).map_err(|e| e.to_string());
        }
        let start = self.bytes.len();
        match encode_apart::<T, C>(task, self.bytes) {
            Ok(buffers) if buffers.is_empty() => Ok(()),
            Ok(buffers) => {
                self.add_buffers(start, buffers);
                Ok(())
            }
            Err(e) => Err(e.to_string()),
        }
    }

    /// Adds the buffers that the encoding leaves out, which starts at `start`, behind its tag.
    #[cold]
    fn add_buffers(&mut self, start: usize, buffers: Vec<Sent>) {
        // If it is the only task in the buffer, it takes the buffer without a copy.
        let made = match start {
            1 if self.bytes.len() > MAX_INLINE => Ok(Large::new(std::mem::take(self.bytes), 1)),
            _ => Large::copied(&self.bytes[start..]),
        };
        self.large = Some(made.map(|large| Box::new(large.with_buffers(buffers))));
    }
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the total size of the tasks added since the batch was empty, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self.is_empty() {
            true => 0,
            false => self.frames.end + self.large_bytes,
        }
    }

    /// Adds task `index`, which `encode` writes. If `encode` fails, nothing is added.
    #[inline]
    pub(crate) fn push(
        &mut self,
        index: u64,
        encode: impl FnOnce(&mut TaskWriter<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.is_empty() {
            self.runs.clear();
            (self.next, self.frames, self.large_bytes) = Default::default();
        }
        let start = self.frames.end;
        // An `encode` that panicked may have left bytes behind.
        self.bytes.truncate(start);
        self.bytes.push(Tag::Inline as u8);
        let mut writer = TaskWriter {
            bytes: &mut self.bytes,
            large: None,
        };
        let written = encode(&mut writer);
        // The usual case. Nothing is moved that was just written: a processor waits if it loads more at a time than was stored.
        let frame_len = writer.bytes.len() - start;
        if written.is_ok() && writer.large.is_none() && frame_len <= MAX_INLINE + 1 {
            self.push_small(index, frame_len);
            return Ok(());
        }
        let large = writer.large;
        self.push_other(index, start, written.map(|()| large))
    }

    /// Counts a small task.
    #[inline]
    fn push_small(&mut self, index: u64, frame_len: usize) {
        self.len += 1;
        self.frames.end += frame_len;
        if let Some(BatchRun { run, large: None }) = self.runs.last_mut()
            && run.is_continued_by(index, frame_len)
        {
            run.count += 1;
            return;
        }
        let run = TaskRun::one(index, frame_len);
        self.runs.push(BatchRun { run, large: None });
    }

    /// Adds a task that is long, or failed. Its bytes, as far as they were written, lie behind `start`.
    #[cold]
    fn push_other(
        &mut self,
        index: u64,
        start: usize,
        written: Result<Option<Result<Box<Large>, String>>, String>,
    ) -> Result<(), String> {
        let mut large = written.inspect_err(|_| self.bytes.truncate(start))?;
        if large.is_none() && self.bytes.len() - start > MAX_INLINE + 1 {
            // If it is the only task in the buffer, it takes the buffer without a copy.
            let made = match start {
                0 => Ok(Large::new(std::mem::take(&mut self.bytes), 1)),
                _ => Large::copied(&self.bytes[start + 1..]),
            };
            large = Some(made.map(Box::new));
        }
        let large = large.transpose().inspect_err(|_| self.bytes.truncate(start))?;
        let Some(large) = large else {
            self.push_small(index, self.bytes.len() - start);
            return Ok(());
        };
        self.bytes.truncate(start);
        self.bytes.shrink_to(KEEP);
        self.large_bytes += large.len();
        self.len += 1;
        let run = TaskRun::one(index, 0);
        let large = Some(large);
        self.runs.push(BatchRun { run, large });
        Ok(())
    }

    /// Returns the front task.
    pub(crate) fn front(&self) -> Option<(u64, Payload<'_>)> {
        let BatchRun { run, large } = self.runs.get(self.next.0)?;
        let payload = match large {
            Some(large) => Payload::Large(large),
            None => Payload::Inline(&self.bytes[self.frames.start..][..run.frame_len]),
        };
        Some((run.index + self.next.1 as u64, payload))
    }

    /// Removes the front task.
    pub(crate) fn pop(&mut self) {
        debug_assert!(!self.is_empty(), "pop from an empty batch");
        // The connection that took it keeps the large payload alive.
        self.runs[self.next.0].large = None;
        self.pop_run(1);
    }

    /// Returns small tasks at the front, `max` at most, that can be sent in one operation. None if the front task is large.
    #[inline]
    pub(crate) fn run(&self, max: usize) -> FrameSlice<'_> {
        let (at, removed) = self.next;
        let waiting = self.runs.get(at..).unwrap_or_default();
        let small = waiting.iter().take_while(|run| run.large.is_none());
        let runs = &waiting[..small.count()];
        FrameSlice {
            runs,
            removed,
            tasks: max.min(runs.iter().map(|run| run.run.count).sum::<usize>() - removed),
            bytes: &self.bytes[self.frames.clone()],
        }
    }

    /// Removes `tasks` tasks from the front.
    pub(crate) fn pop_run(&mut self, tasks: usize) {
        debug_assert!(tasks <= self.len(), "pop from an empty batch");
        self.len -= tasks;
        let mut left = tasks;
        while left > 0 {
            let (at, removed) = self.next;
            let run = self.runs[at].run;
            let popped = left.min(run.count - removed);
            self.frames.start += popped * run.frame_len;
            left -= popped;
            self.next = match removed + popped == run.count {
                true => (at + 1, 0),
                false => (at, removed + popped),
            };
        }
    }
}

/// Consecutive small tasks of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameSlice<'a> {
    runs: &'a [BatchRun],
    /// Number of tasks of the first run that are not part of this slice.
    removed: usize,
    tasks: usize,
    /// Starts with the frames.
    bytes: &'a [u8],
}

impl<'a> FrameSlice<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks == 0
    }

    /// Returns the runs of which it consists, each with its frames.
    #[inline]
    pub(crate) fn runs(self) -> impl Iterator<Item = (TaskRun, &'a [u8])> {
        let Self {
            runs,
            mut removed,
            mut tasks,
            mut bytes,
        } = self;
        runs.iter().map_while(move |run| {
            let mut run = run.run.behind(std::mem::take(&mut removed));
            run.count = run.count.min(tasks);
            tasks -= run.count;
            let (frames, behind) = bytes.split_at(run.bytes());
            bytes = behind;
            (run.count > 0).then_some((run, frames))
        })
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

    fn put(bytes: &[u8]) -> impl FnOnce(&mut TaskWriter<'_>) -> Result<(), String> {
        |writer| {
            writer.bytes.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn batch_is_a_queue_and_failed_tasks_leave_no_trace() {
        let mut batch = Batch::default();
        for round in 0..3u64 {
            assert_eq!(batch.push(round, put(&[1, 2, 3])), Ok(()));
            let fail = |writer: &mut TaskWriter<'_>| {
                writer.bytes.push(9);
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
    fn panicking_encoder_leaves_no_trace() {
        let mut batch = Batch::default();
        batch.push(0, put(&[1])).unwrap();
        let panics = |writer: &mut TaskWriter<'_>| {
            writer.bytes.extend([7; 100]);
            std::panic::resume_unwind(Box::new(()))
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| batch.push(1, panics))).unwrap_err();
        batch.push(2, put(&[3])).unwrap();
        batch.pop();
        assert_eq!(front(&batch), Some((2, vec![3])));
    }

    #[test]
    fn large_tasks_have_their_own_buffers() {
        let mut batch = Batch::default();
        let sizes = [0, 1, MAX_INLINE, MAX_INLINE + 1, 2 * KEEP, 5];
        for (index, size) in (0..).zip(sizes) {
            let bytes = vec![0; size];
            let encoded = |writer: &mut TaskWriter<'_>| {
                writer.put(&bytes);
                Ok(())
            };
            match index % 2 {
                0 => batch.push(index, put(&bytes)).unwrap(),
                _ => batch.push(index, encoded).unwrap(),
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
    fn the_memory_of_a_large_vector_is_taken() {
        let at = |batch: &Batch| match batch.front() {
            Some((_, Payload::Large(large))) => large.encoding().as_ptr(),
            other => panic!("{other:?}"),
        };
        let bytes = vec![7; MAX_INLINE + 1];
        let address = bytes.as_ptr();
        let (mut taken, mut copied) = (Batch::default(), Batch::default());
        let by_reference = &bytes;
        let put = |writer: &mut TaskWriter<'_>| {
            writer.put_owned(by_reference);
            Ok(())
        };
        copied.push(0, put).unwrap();
        let give = |writer: &mut TaskWriter<'_>| {
            writer.put_owned(bytes);
            Ok(())
        };
        taken.push(0, give).unwrap();
        assert_eq!(at(&taken), address);
        assert_ne!(at(&copied), address);
    }

    #[test]
    fn run_returns_the_small_tasks_at_the_front() {
        let mut batch = Batch::default();
        let sizes = [3, 0, 2, MAX_INLINE + 1, 1];
        for (index, size) in (0..).zip(sizes) {
            batch.push(index, put(&vec![index as u8; size])).unwrap();
        }
        batch.pop();
        let tag = Tag::Inline as u8;
        let run = |index, count, frame_len| TaskRun {
            index,
            count,
            frame_len,
        };
        let runs = |batch: &Batch, max| {
            let runs = batch.run(max).runs();
            runs.map(|(run, frames)| (run, frames.to_vec()))
                .collect::<Vec<_>>()
        };
        let (first, second) = ((run(1, 1, 1), vec![tag]), (run(2, 1, 3), vec![tag, 2, 2]));
        assert_eq!(runs(&batch, 9), [first.clone(), second.clone()]);
        assert_eq!(runs(&batch, 1), [first]);
        assert!(batch.run(0).is_empty() && runs(&batch, 0).is_empty());
        batch.pop_run(1);
        assert_eq!(runs(&batch, 9), [second]);
        batch.pop_run(1);
        assert!(batch.run(9).is_empty(), "the next task is large");
        batch.pop();
        assert_eq!(runs(&batch, 9), [(run(4, 1, 2), vec![tag, 4])]);
        batch.pop_run(1);
        assert!(batch.is_empty() && batch.run(9).is_empty());
    }

    #[test]
    fn tasks_that_are_alike_are_one_run() {
        let mut batch = Batch::default();
        // A gap in the indices, and another length.
        for (index, byte) in [(0, 1), (1, 2), (2, 3), (5, 6), (6, 7)] {
            batch.push(index, put(&[byte])).unwrap();
        }
        batch.push(7, put(&[8, 9])).unwrap();
        let counts = |batch: &Batch, max| {
            let runs = batch.run(max).runs();
            runs.map(|(run, frames)| (run.index, run.count, frames[1]))
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(&batch, 9), [(0, 3, 1), (5, 2, 6), (7, 1, 8)]);
        assert_eq!(counts(&batch, 4), [(0, 3, 1), (5, 1, 6)]);
        batch.pop_run(2);
        assert_eq!(counts(&batch, 9), [(2, 1, 3), (5, 2, 6), (7, 1, 8)]);
        batch.pop_run(2);
        assert_eq!((batch.len(), front(&batch)), (2, Some((6, vec![7]))));
        // Another task behind those that are left.
        batch.push(8, put(&[1, 2])).unwrap();
        assert_eq!(counts(&batch, 9), [(6, 1, 7), (7, 2, 8)]);
        batch.pop_run(3);
        assert_eq!((batch.len(), batch.bytes()), (0, 0));
    }
}
