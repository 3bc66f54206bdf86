//! [`Map`]: the iterator over the outputs of a pool.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::driver::Driver;
use crate::error::{Fault, TaskError};
use crate::jobs::{Completion, Completions, JobKey, Outcome};
use crate::panics::message;

/// In which order outputs are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ordered,
    AsCompleted,
}

/// Tasks that an ordered map takes in beyond the one it waits for.
const AHEAD: u64 = 1 << 15;
/// Bytes of outputs that an ordered map holds back for the one it waits for, before it takes in no more tasks.
const HELD: usize = 64 << 20;
/// Bytes of tasks pulled before what is there goes to the workers.
const PULL_BYTES: usize = 1 << 20;
/// How long the input may be asked for tasks before what is there goes to the workers.
const PULL: Duration = Duration::from_micros(100);
/// Tasks pulled between two looks at the clock.
const LOOK: usize = 8;

type Encode<T> = fn(T, &mut Vec<u8>) -> Result<(), String>;
type Decode<R> = fn(&[u8]) -> Result<R, String>;

/// The outputs of a pool's tasks, as they become available: `Ok`, or what happened to that task.
///
/// It takes tasks from its input as workers have room for them. Dropping it forgets the tasks that are still under
/// way; their workers finish them.
pub struct Map<'p, I: Iterator, R> {
    driver: &'p Driver,
    job: JobKey,
    input: Option<I>,
    encode: Encode<I::Item>,
    decode: Decode<R>,
    order: Order,
    batch: Batch,
    /// Index of the next task from the input.
    next: u64,
    /// Outputs given.
    given: u64,
    done: Completions,
    /// Outputs ready to be given: all of them, or by index from `given` on.
    ready: VecDeque<Option<Ready<R>>>,
    /// Bytes that they came from.
    held: usize,
    /// Outputs to give before workers are looked after again.
    credit: usize,
}

struct Ready<R> {
    /// The error is boxed, because it is large and most have none.
    result: Result<R, Box<TaskError>>,
    bytes: usize,
}

impl<I: Iterator, R> std::fmt::Debug for Map<'_, I, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            order, next, given, ..
        } = self;
        f.debug_struct("Map")
            .field("order", order)
            .field("taken", next)
            .field("given", given)
            .finish()
    }
}

impl<'p, I: Iterator, R> Map<'p, I, R> {
    pub(crate) fn new(
        driver: &'p Driver,
        input: I,
        order: Order,
        encode: Encode<I::Item>,
        decode: Decode<R>,
    ) -> Self {
        let job = driver.core().jobs.add();
        Self {
            driver,
            job,
            input: Some(input),
            encode,
            decode,
            order,
            batch: Batch::default(),
            next: 0,
            given: 0,
            done: Completions::default(),
            ready: VecDeque::new(),
            held: 0,
            credit: 0,
        }
    }

    fn put(&mut self, task: u64, result: Result<R, Box<Fault>>, bytes: usize) {
        let result = result.map_err(|fault| Box::new(TaskError { task, fault: *fault }));
        let ready = Some(Ready { result, bytes });
        self.held += bytes;
        match self.order {
            Order::AsCompleted => self.ready.push_back(ready),
            Order::Ordered => {
                let place = (task - self.given) as usize;
                if self.ready.len() <= place {
                    self.ready.resize_with(place + 1, || None);
                }
                self.ready[place] = ready;
            }
        }
    }

    fn give(&mut self) -> Option<Result<R, TaskError>> {
        let Ready { result, bytes } = self.ready.front_mut()?.take()?;
        self.ready.pop_front();
        self.given += 1;
        self.held -= bytes;
        Some(result.map_err(|error| *error))
    }

    /// How many more tasks the input may be asked for.
    fn appetite(&self) -> usize {
        match self.order {
            _ if self.input.is_none() => 0,
            Order::AsCompleted => usize::MAX,
            Order::Ordered if self.held > HELD => 0,
            Order::Ordered => (self.given + AHEAD).saturating_sub(self.next) as usize,
        }
    }

    /// Takes what was finished, gives workers new tasks. Never waits but for the input.
    fn tend(&mut self) {
        let mut room;
        {
            let mut core = self.driver.core();
            core.pump();
            if let Some(job) = core.jobs.get(self.job) {
                std::mem::swap(&mut job.done, &mut self.done);
            }
            if !self.batch.is_empty() {
                core.submit(self.job, &mut self.batch);
            }
            room = core.room();
        }
        let mut done = std::mem::take(&mut self.done);
        for Completion { index, outcome } in done.list.drain(..) {
            let (result, bytes) = match outcome {
                Outcome::Bytes { start, end } => (self.decode(&done.bytes[start..end]), end - start),
                Outcome::Segment(segment) => (self.decode(&segment), segment.len()),
                Outcome::Fault(fault) => (Err(fault), 0),
            };
            self.put(index, result, bytes);
        }
        done.clear();
        self.done = done;
        while self.batch.is_empty() && room > 0 && self.appetite() > 0 {
            let pulled = self.pull(room.min(self.appetite()));
            if self.batch.is_empty() {
                break;
            }
            let mut core = self.driver.core();
            core.submit(self.job, &mut self.batch);
            room = room.saturating_sub(pulled);
            // Not all at once: outputs may be waiting.
            core.pump();
            let done = core
                .jobs
                .get(self.job)
                .is_none_or(|job| !job.done.list.is_empty());
            if done || !self.ready.is_empty() {
                break;
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<R, Box<Fault>> {
        // An output that makes its type's decoder panic is that task's error, and no reason to lose the others.
        panic::catch_unwind(AssertUnwindSafe(|| (self.decode)(bytes)))
            .unwrap_or_else(|payload| Err(format!("decoding panicked: {}", message(&*payload))))
            .map_err(|reason| Box::new(Fault::Output(reason)))
    }

    /// Takes up to `room` tasks from the input into the batch.
    fn pull(&mut self, room: usize) -> usize {
        let started = Instant::now();
        let mut pulled = 0;
        while pulled < room && self.batch.bytes() < PULL_BYTES {
            let Some(task) = self.input.as_mut().and_then(Iterator::next) else {
                self.input = None;
                break;
            };
            let index = self.next;
            let pushed = self.batch.push(index, |bytes| (self.encode)(task, bytes));
            // Now, so that after a panic in what is the user's above, every index is somebody's.
            self.next += 1;
            pulled += 1;
            if let Err(reason) = pushed {
                self.put(index, Err(Box::new(Fault::Task(reason))), 0);
            }
            let look = pulled.is_multiple_of(LOOK) || pulled.is_power_of_two();
            if look && started.elapsed() > PULL {
                break;
            }
        }
        pulled
    }
}

impl<I: Iterator, R> Iterator for Map<'_, I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.credit > 0
                && let Some(result) = self.give()
            {
                self.credit -= 1;
                return Some(result);
            }
            self.tend();
            // Half of what is there, so that workers are looked after while the rest is used.
            self.credit = self.ready.len() / 2 + 1;
            if let Some(result) = self.give() {
                self.credit -= 1;
                return Some(result);
            }
            if self.input.is_none() && self.given == self.next {
                return None;
            }
            let wants = !self.batch.is_empty() || self.appetite() > 0;
            let job = self.job;
            self.driver.wait(None, |core| {
                let done = core.jobs.get(job).is_none_or(|job| !job.done.list.is_empty());
                (done || (wants && core.room() > 0)).then_some(())
            });
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let waiting = (self.next - self.given) as usize;
        let (low, high) = self.input.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        (
            low.saturating_add(waiting),
            high.and_then(|high| high.checked_add(waiting)),
        )
    }
}

impl<I: Iterator, R> Drop for Map<'_, I, R> {
    fn drop(&mut self) {
        self.driver.core().jobs.remove(self.job);
    }
}
