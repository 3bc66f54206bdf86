//! [`Batch`]: encoded tasks on their way to the workers.

use shm_buffers::out_of_band::Sent;

use crate::wire::apart::encode_apart;
use crate::wire::codec::Codec;
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::payload::{Large, MAX_INLINE, Payload};
use crate::wire::tags::Tag;

/// Maximum capacity in bytes that an emptied batch keeps for the next tasks.
const KEEP: usize = 1 << 20;

/// A queue of encoded tasks, in one reused buffer.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    tasks: Vec<BatchTask>,
    /// Index in `tasks` of the front task.
    next: usize,
    /// Total size of the large tasks, which have buffers of their own.
    large_bytes: usize,
}

#[derive(Debug)]
struct BatchTask {
    index: u64,
    /// The end of its frame in `bytes`. The frame starts where the one before it ends.
    end: usize,
    /// Boxed, because most tasks have none.
    large: Option<Box<Large>>,
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
        if !APART {
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
        self.tasks.len() - self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the total size of the tasks added since the batch was empty, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self.is_empty() {
            true => 0,
            false => self.bytes.len() + self.large_bytes,
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
            self.tasks.clear();
            self.next = 0;
            self.large_bytes = 0;
        }
        let start = self.tasks.last().map_or(0, |last| last.end);
        // An `encode` that panicked may have left bytes behind.
        self.bytes.truncate(start);
        self.bytes.push(Tag::Inline as u8);
        let mut writer = TaskWriter {
            bytes: &mut self.bytes,
            large: None,
        };
        let written = encode(&mut writer);
        // The usual case. Nothing is moved that was just written: a processor waits if it loads more at a time than was stored.
        let end = writer.bytes.len();
        if written.is_ok() && writer.large.is_none() && end - start <= MAX_INLINE + 1 {
            self.tasks.push(BatchTask {
                index,
                end,
                large: None,
            });
            return Ok(());
        }
        let large = writer.large;
        self.push_other(index, start, written.map(|()| large))
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
        if let Some(large) = &large {
            self.bytes.truncate(start);
            self.bytes.shrink_to(KEEP);
            self.large_bytes += large.len();
        }
        let end = self.bytes.len();
        self.tasks.push(BatchTask { index, end, large });
        Ok(())
    }

    /// Returns the front task.
    pub(crate) fn front(&self) -> Option<(u64, Payload<'_>)> {
        let BatchTask { index, end, large } = self.tasks.get(self.next)?;
        let start = self.start();
        let payload = match large {
            Some(large) => Payload::Large(large),
            None => Payload::Inline(&self.bytes[start..*end]),
        };
        Some((*index, payload))
    }

    /// Removes the front task.
    pub(crate) fn pop(&mut self) {
        debug_assert!(!self.is_empty(), "pop from an empty batch");
        // The connection that took it keeps the large payload alive.
        self.tasks[self.next].large = None;
        self.next += 1;
    }

    /// Returns the small tasks at the front, `max` at most: they can be sent in one operation.
    #[inline]
    pub(crate) fn run(&self, max: usize) -> FrameSlice<'_> {
        let waiting = &self.tasks[self.next..];
        let small = waiting.iter().take(max).take_while(|task| task.large.is_none());
        FrameSlice {
            tasks: &waiting[..small.count()],
            bytes: &self.bytes,
            start: self.start(),
        }
    }

    /// Removes `tasks` small tasks from the front.
    pub(crate) fn pop_run(&mut self, tasks: usize) {
        debug_assert!(tasks <= self.len(), "pop from an empty batch");
        self.next += tasks;
    }

    /// Returns where the frame of the front task starts.
    fn start(&self) -> usize {
        self.next
            .checked_sub(1)
            .map_or(0, |before| self.tasks[before].end)
    }
}

/// Consecutive small tasks of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameSlice<'a> {
    tasks: &'a [BatchTask],
    bytes: &'a [u8],
    start: usize,
}

impl<'a> FrameSlice<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns the frames, in order.
    #[inline]
    pub(crate) fn frames(self) -> impl Iterator<Item = &'a [u8]> {
        let Self { tasks, bytes, start } = self;
        tasks.iter().scan(start, move |start, task| {
            let frame = &bytes[*start..task.end];
            *start = task.end;
            Some(frame)
        })
    }

    /// Returns the first `tasks` tasks of this slice.
    pub(crate) fn first(self, tasks: usize) -> Self {
        Self {
            tasks: &self.tasks[..tasks],
            ..self
        }
    }

    /// Returns all frames as one slice: they are contiguous.
    pub(crate) fn bytes(self) -> &'a [u8] {
        let end = self.tasks.last().map_or(self.start, |last| last.end);
        &self.bytes[self.start..end]
    }

    /// Returns the index and the frame length of each task.
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
    fn run_returns_the_small_tasks_at_the_front() {
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
        assert!(batch.run(9).is_empty(), "the next task is large");
        batch.pop();
        assert_eq!(batch.run(9).entries().collect::<Vec<_>>(), [(4, 2)]);
        batch.pop_run(1);
        assert!(batch.is_empty() && batch.run(9).is_empty());
    }
}
