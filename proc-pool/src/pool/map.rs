//! [`Map`]: the iterator over the outputs of a pool. A thread that asks for an output also submits tasks and runs the event
//! loop.

mod decoded;
mod later;
mod ready;
mod try_next;

use std::collections::{HashMap, VecDeque};
use std::iter::FusedIterator;
use std::mem::needs_drop;
use std::time::{Duration, Instant};

use crate::error::{Fault, TaskError};
use crate::leader::tasks::batch::{Batch, TaskWriter};
use crate::leader::tasks::decode::Decode;
use crate::leader::tasks::jobs::{Completion, Completions, JobKey, Outcome};
use crate::pool::loop_ref::LoopRef;
use crate::wire::codec::Codec;

use decoded::Decoded;
use later::Later;

pub use ready::{Ready, ReadyRun, Taken};
pub use try_next::TryNext;

/// The order in which outputs are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputOrder {
    Ordered,
    AsCompleted,
}

/// Maximum number of tasks that an ordered map takes from its input beyond the one whose output is next.
const AHEAD: u64 = 1 << 15;
/// An ordered map takes no more tasks while it buffers more than this number of bytes of outputs that are not next.
const MAX_BUFFERED_BYTES: usize = 64 << 20;
/// Bytes of tasks after which a batch is sent to the workers.
const BATCH_BYTES: usize = 1 << 20;
/// Time for pulling tasks from the input, after which a batch is sent to the workers.
const BATCH_TIME: Duration = Duration::from_micros(100);
/// Maximum number of tasks that are pulled between two readings of the clock.
const TASKS_PER_READING: usize = 64;

/// Encodes tasks; an error is the text of the task's error.
pub(crate) struct Encode<T> {
    /// A task that the caller keeps.
    pub(crate) borrowed: fn(&T, &mut TaskWriter<'_>) -> Result<(), String>,
    /// A task whose memory may become the payload.
    pub(crate) owned: fn(T, &mut TaskWriter<'_>) -> Result<(), String>,
}

impl<T> Clone for Encode<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Encode<T> {}

impl<T> Encode<T> {
    /// Encodes with `C`. Large buffers of a task travel apart from it.
    pub(crate) fn by<C: Codec<T>>() -> Self {
        Self::new::<C, true>()
    }

    /// Encodes with `C`, for workers that read tasks as bytes: the encoding contains all of the task.
    pub(crate) fn whole_by<C: Codec<T>>() -> Self {
        Self::new::<C, false>()
    }

    fn new<C: Codec<T>, const APART: bool>() -> Self {
        Self {
            borrowed: |task, writer| match C::as_bytes(task) {
                Some(bytes) => {
                    writer.put(bytes);
                    Ok(())
                }
                None => writer.encode::<T, C, APART>(task),
            },
            owned: |task, writer| match C::into_owned(task) {
                Ok(bytes) => {
                    writer.give(bytes);
                    Ok(())
                }
                Err(task) => writer.encode::<T, C, APART>(&task),
            },
        }
    }
}

/// What sees the outputs of a map as they arrive, in the order of their completion: the index of the task, and the encoded output. It
/// is called by the thread that asks for outputs, without a lock.
pub type Tap = Box<dyn FnMut(u64, &[u8]) + Send + Sync>;

/// An iterator over the outputs of tasks, or the errors of the tasks that have failed.
///
/// It takes tasks from its input as workers have room for them. Dropping it withdraws the tasks that no worker has started.
/// Workers finish the tasks that they have started, and those outputs are dropped. The drop waits for no worker.
///
/// The iterator is fused. Its `size_hint` is exact if that of the input is, unless the pool is
/// [interrupted](crate::BytePool::interrupt): then it may return fewer outputs.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Map<'p, I: Iterator, R> {
    event_loop: LoopRef<'p>,
    job: JobKey,
    input: Option<I>,
    encode: Encode<I::Item>,
    decode: Decode<R>,
    order: OutputOrder,
    batch: Batch,
    /// Number of tasks taken from the input. It is also the index of the next one.
    next: u64,
    /// Number of outputs returned.
    returned: u64,
    /// The index of the output that was returned last.
    last: u64,
    /// The tasks taken from the input whose outputs were not returned, by index, if they are wanted.
    kept: Option<Box<KeptTasks<I::Item>>>,
    tap: Option<Tap>,
    /// Finished tasks in the order of completion.
    done: Completions,
    decoded: Decoded<R>,
    /// The tasks that could not be encoded, and the output behind `decoded` if it could not be decoded.
    errors: VecDeque<Completion>,
    /// Maximum number of tasks taken from the input whose outputs were not returned.
    max_in_flight: usize,
    /// Of an ordered map: outputs that are not next.
    later: Later<R>,
    /// Number of outputs to return before the next exchange with the workers. Those that are decoded are returned before in any case.
    credit: usize,
}

/// Tasks by index. Boxed in a map, because most maps keep none.
struct KeptTasks<T>(HashMap<u64, T>);

impl<I: Iterator, R> std::fmt::Debug for Map<'_, I, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            order,
            next,
            returned,
            ..
        } = self;
        f.debug_struct("Map")
            .field("order", order)
            .field("taken", next)
            .field("returned", returned)
            .finish()
    }
}

impl<'p, I: Iterator, R> Map<'p, I, R> {
    pub(crate) fn new(
        event_loop: LoopRef<'p>,
        input: I,
        order: OutputOrder,
        encode: Encode<I::Item>,
        decode: Decode<R>,
    ) -> Self {
        // A forked copy of a pool has no jobs. Its error is returned by `next`.
        let job = match event_loop.check() {
            Ok(()) => event_loop.scheduler().add_job(decode.form),
            Err(_) => JobKey::NONE,
        };
        Self {
            event_loop,
            job,
            input: Some(input),
            encode,
            decode,
            order,
            batch: Batch::default(),
            next: 0,
            returned: 0,
            last: 0,
            kept: None,
            tap: None,
            done: Completions::default(),
            decoded: Decoded::default(),
            errors: VecDeque::new(),
            max_in_flight: usize::MAX,
            later: Later::default(),
            credit: 0,
        }
    }

    /// Limits the tasks that this map has taken from its input, and whose outputs it has not returned (default: no limit; the pool
    /// chooses). 0 counts as 1. For tasks that hold something scarce, such as memory or a connection of the leader. With fewer tasks in
    /// flight than about twice the number of workers, workers wait for tasks.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # proc_pool::init();
    /// let pool = proc_pool::Builder::new().build_op(|text: String| text.len())?;
    /// let mut lengths = pool.map((0..100).map(|n| "large ".repeat(n)));
    /// lengths.set_max_in_flight(8);
    /// # Ok(()) }
    /// ```
    pub fn set_max_in_flight(&mut self, tasks: usize) {
        self.max_in_flight = tasks.max(1);
    }

    /// Has `tap` called with each encoded output.
    #[doc(hidden)]
    pub fn set_tap(&mut self, tap: Tap) {
        if self.event_loop.is_here() {
            self.event_loop.scheduler().require_in_band();
        }
        self.tap = Some(tap);
    }

    /// Returns the index of the task whose output was returned last.
    #[doc(hidden)]
    pub fn last_task(&self) -> u64 {
        self.last
    }

    /// Keeps each task until [`take_last_task`](Self::take_last_task) returns it. Returns whether that is possible: no task was taken from the
    /// input yet.
    pub(crate) fn keep_tasks(&mut self) -> bool {
        let possible = self.next == 0 && self.input.is_some();
        if possible {
            self.kept = Some(Box::new(KeptTasks(HashMap::new())));
        }
        possible
    }

    /// Returns the task of the output that was returned last, if tasks are kept.
    pub(crate) fn take_last_task(&mut self) -> Option<I::Item> {
        self.kept.as_mut()?.0.remove(&self.last)
    }

    /// Returns the next output, if it is available.
    fn next_ready(&mut self) -> Option<Result<R, TaskError>> {
        loop {
            if let Some(output) = self.next_decoded() {
                return Some(Ok(output));
            }
            if self.order == OutputOrder::Ordered {
                if self.later.take(self.returned, &mut self.decoded.outputs) {
                    self.decoded.index = self.returned;
                    continue;
                }
                if let Some(error) = self.later.take_error(self.returned) {
                    self.last = self.returned;
                    self.returned += 1;
                    return Some(Err(error));
                }
            }
            if self.decode_run() {
                continue;
            }
            let Completion { index, outcome } = self.take()?;
            if let Some(tap) = &mut self.tap
                && let Some(encoded) = outcome.encoded(&self.done.bytes)
            {
                tap(index, encoded);
            }
            let (result, bytes) = self.decode.outcome(outcome, &self.done.bytes);
            let result = result.map_err(|fault| {
                let (task, fault) = (index, *fault);
                TaskError { task, fault }
            });
            if self.is_next(index) {
                self.last = index;
                self.returned += 1;
                return Some(result);
            }
            match result {
                Ok(output) => {
                    self.decoded.outputs.push_back(output);
                    self.later.add(index, &mut self.decoded.outputs, bytes);
                }
                Err(error) => self.later.add_error(error),
            }
        }
    }

    /// Returns the next output, and waits for it, if none is decoded.
    fn next_undecoded(&mut self) -> Option<Result<R, TaskError>> {
        loop {
            match self.try_next_undecoded() {
                TryNext::Output(result) => return Some(result),
                TryNext::End => return None,
                TryNext::Pending => {
                    self.wait_until(None);
                }
            }
        }
    }

    /// Returns whether the output of task `index` may be returned now.
    #[inline]
    fn is_next(&self, index: u64) -> bool {
        self.order == OutputOrder::AsCompleted || index == self.returned
    }

    /// Takes the next finished task.
    fn take(&mut self) -> Option<Completion> {
        if let Some(completion) = self.errors.pop_front() {
            return Some(completion);
        }
        self.done.take_next()
    }

    /// Returns the number of available outputs, including those that are not next.
    fn available(&self) -> usize {
        self.decoded.len() + self.later.len() + self.errors.len() + self.done.len()
    }

    /// Returns how many more tasks may be taken from the input.
    fn input_budget(&self) -> usize {
        let budget = match self.order {
            _ if self.input.is_none() => 0,
            OutputOrder::AsCompleted => usize::MAX,
            OutputOrder::Ordered if self.later.bytes() > MAX_BUFFERED_BYTES => 0,
            OutputOrder::Ordered => (self.returned + AHEAD).saturating_sub(self.next) as usize,
        };
        let in_flight = (self.next - self.returned) as usize;
        budget.min(self.max_in_flight.saturating_sub(in_flight))
    }

    /// Exchanges with the workers, and renews the credit: it is half of the available outputs, so that workers get new tasks before the other
    /// half is used.
    fn renew_credit(&mut self) {
        self.exchange();
        self.credit = self.available() / 2 + 1;
    }

    /// Takes finished tasks from the scheduler, and submits new ones. It waits for nothing but the input.
    fn exchange(&mut self) {
        self.event_loop.record_use();
        let mut room;
        let interrupted;
        {
            let mut scheduler = self.event_loop.scheduler();
            // More than these would wait in memory.
            let arrived = scheduler.jobs.get(self.job).map_or(0, |job| job.done.len());
            if arrived == 0 {
                drop(scheduler);
                scheduler = self.event_loop.fresh_scheduler();
            }
            if self.done.is_empty()
                && let Some(job) = scheduler.jobs.get(self.job)
            {
                self.done.clear();
                std::mem::swap(&mut job.done, &mut self.done);
            }
            if !self.batch.is_empty() {
                scheduler.submit(self.job, &mut self.batch);
            }
            room = scheduler.room();
            interrupted = scheduler.interrupted().is_some();
        }
        if interrupted {
            self.input = None;
        }
        if room == 0 && self.available() as u64 == self.next - self.returned {
            // The pool may be replacing all its workers. There is time to find out whether the input has another task.
            room = 1;
        }
        while self.batch.is_empty() && room > 0 && self.input_budget() > 0 {
            let pulled = self.pull(room.min(self.input_budget()));
            // The input or the encoder may have forked.
            if self.batch.is_empty() || !self.event_loop.is_here() {
                break;
            }
            self.event_loop.scheduler().submit(self.job, &mut self.batch);
            room = room.saturating_sub(pulled);
            // Submit no more batches if outputs are available, and take no more of those: they would wait in memory.
            if self.available() > 0 {
                break;
            }
            let mut scheduler = self.event_loop.fresh_scheduler();
            let done = scheduler
                .jobs
                .get(self.job)
                .is_none_or(|job| !job.done.is_empty());
            if done {
                break;
            }
        }
    }

    /// Returns one error and then ends the iterator, in a forked copy of the leader.
    #[cold]
    fn fail_forked(&mut self) -> Option<Result<R, TaskError>> {
        let mut task = match self.order {
            _ if self.input.is_none() && self.returned == self.next => return None,
            OutputOrder::Ordered => self.returned,
            OutputOrder::AsCompleted => self.next,
        };
        if let Some(kept) = &mut self.kept {
            // The error needs a task: one that was taken, or the next one.
            match kept.0.keys().min() {
                Some(first) => task = *first,
                None => {
                    kept.0.insert(task, self.input.as_mut()?.next()?);
                }
            }
            self.last = task;
        }
        self.input = None;
        self.decoded.clear();
        self.later.clear();
        self.returned = self.next;
        let fault = Fault::Pool(self.event_loop.forked());
        Some(Err(TaskError { task, fault }))
    }

    /// Takes up to `room` tasks from the input into the batch, and returns their number.
    fn pull(&mut self, room: usize) -> usize {
        let started = Instant::now();
        let mut pulled = 0;
        let mut next_reading = 1;
        while pulled < room && self.batch.bytes() < BATCH_BYTES {
            let Some(task) = self.input.as_mut().and_then(Iterator::next) else {
                self.input = None;
                break;
            };
            let index = self.next;
            let pushed = match &mut self.kept {
                None if needs_drop::<I::Item>() => {
                    self.batch.push(index, |writer| (self.encode.owned)(task, writer))
                }
                // It has no memory to give away, and a reference costs less than a copy of it.
                None => self
                    .batch
                    .push(index, |writer| (self.encode.borrowed)(&task, writer)),
                Some(kept) => {
                    let pushed = self
                        .batch
                        .push(index, |writer| (self.encode.borrowed)(&task, writer));
                    kept.0.insert(index, task);
                    pushed
                }
            };
            // Incremented only here, so that each index below `next` has a task even if user code above has panicked.
            self.next += 1;
            pulled += 1;
            if let Err(reason) = pushed {
                let outcome = Outcome::Fault(Box::new(Fault::Task(reason)));
                self.errors.push_back(Completion { index, outcome });
            }
            if pulled == next_reading {
                let elapsed = started.elapsed();
                if elapsed > BATCH_TIME {
                    break;
                }
                // Read the clock again after half of the tasks for which there is time at this rate.
                let left = (BATCH_TIME - elapsed).as_nanos() * pulled as u128 / elapsed.as_nanos().max(1);
                next_reading += (left / 2).clamp(1, TASKS_PER_READING as u128) as usize;
            }
        }
        pulled
    }
}

impl<I: Iterator, R> Iterator for Map<'_, I, R> {
    type Item = Result<R, TaskError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.take_decoded_one() {
            Some(output) => Some(Ok(output)),
            None => self.next_undecoded(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let taken = (self.next - self.returned) as usize;
        let (low, high) = self.input.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        (
            low.saturating_add(taken),
            high.and_then(|high| high.checked_add(taken)),
        )
    }
}

impl<I: Iterator, R> FusedIterator for Map<'_, I, R> {}

impl<I: Iterator, R> Drop for Map<'_, I, R> {
    fn drop(&mut self) {
        self.event_loop.abandon(self.job);
    }
}
