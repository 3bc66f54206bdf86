//! [`Map`]: the iterator over the outputs of a pool.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Draft};
use crate::decode::Decode;
use crate::driver::Driver;
use crate::error::{Fault, TaskError};
use crate::jobs::{Completion, Completions, JobKey, Outcome};

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
/// Tasks pulled between two looks at the clock, at most.
const LOOK: usize = 64;

pub(crate) type Encode<T> = fn(T, &mut Draft<'_>) -> Result<(), String>;

/// The outputs of a pool's tasks, as they become available: `Ok`, or what happened to that task.
///
/// It takes tasks from its input as workers have room for them. Dropping it withdraws the tasks that no worker has started;
/// workers finish those that they have started, and the outputs are dropped. The drop waits for no worker.
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
    /// What was finished, as it came.
    done: Completions,
    /// How many of those were looked at.
    seen: usize,
    /// Tasks that could not be encoded.
    refused: VecDeque<Completion>,
    /// Outputs that came before their turn, by index from `given` on.
    early: VecDeque<Option<Early<R>>>,
    /// How many they are.
    waiting: usize,
    /// Bytes that they came from.
    held: usize,
    /// Outputs to give before workers are looked after again.
    credit: usize,
}

struct Early<R> {
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
        // The copy of a pool has no jobs; `next` says so.
        let job = match driver.check() {
            Ok(()) => driver.core().jobs.add(),
            Err(_) => JobKey::NOBODY,
        };
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
            seen: 0,
            refused: VecDeque::new(),
            early: VecDeque::new(),
            waiting: 0,
            held: 0,
            credit: 0,
        }
    }

    /// The next output that may be given now.
    fn give(&mut self) -> Option<Result<R, TaskError>> {
        if self.order == Order::Ordered
            && let Some(early) = self.early.front_mut().and_then(Option::take)
        {
            self.early.pop_front();
            self.given += 1;
            self.waiting -= 1;
            self.held -= early.bytes;
            return Some(early.result.map_err(|error| *error));
        }
        while let Some(Completion { index, outcome }) = self.take() {
            let (result, bytes) = self.decode.outcome(outcome, &self.done.bytes);
            let result = result.map_err(|fault| {
                let (task, fault) = (index, *fault);
                TaskError { task, fault }
            });
            if self.order == Order::AsCompleted {
                self.given += 1;
                return Some(result);
            }
            if index == self.given {
                self.early.pop_front();
                self.given += 1;
                return Some(result);
            }
            let place = (index - self.given) as usize;
            if self.early.len() <= place {
                self.early.resize_with(place + 1, || None);
            }
            let result = result.map_err(Box::new);
            self.early[place] = Some(Early { result, bytes });
            self.waiting += 1;
            self.held += bytes;
        }
        None
    }

    /// The next finished task.
    fn take(&mut self) -> Option<Completion> {
        if let Some(refused) = self.refused.pop_front() {
            return Some(refused);
        }
        let next = self.done.list.get_mut(self.seen)?;
        self.seen += 1;
        let outcome = match next.outcome {
            Outcome::Bytes { start, end } => Outcome::Bytes { start, end },
            // Nothing is to be left of a large one.
            _ => std::mem::replace(&mut next.outcome, Outcome::Bytes { start: 0, end: 0 }),
        };
        let index = next.index;
        Some(Completion { index, outcome })
    }

    /// Outputs that are there, though it may not be their turn.
    fn available(&self) -> usize {
        self.waiting + self.refused.len() + self.done.list.len() - self.seen
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
        self.driver.in_use();
        let mut room;
        let interrupted;
        {
            let mut core = self.driver.fresh_core();
            if self.seen == self.done.list.len()
                && let Some(job) = core.jobs.get(self.job)
            {
                self.done.clear();
                self.seen = 0;
                std::mem::swap(&mut job.done, &mut self.done);
            }
            if !self.batch.is_empty() {
                core.submit(self.job, &mut self.batch);
            }
            room = core.room();
            interrupted = core.interrupted().is_some();
        }
        if interrupted {
            self.input = None;
        }
        if room == 0 && self.available() as u64 == self.next - self.given {
            // Workers are being replaced, perhaps: whether there is another task can be found out meanwhile.
            room = 1;
        }
        while self.batch.is_empty() && room > 0 && self.appetite() > 0 {
            let pulled = self.pull(room.min(self.appetite()));
            // The input or the encoder may have forked.
            if self.batch.is_empty() || !self.driver.is_here() {
                break;
            }
            self.driver.core().submit(self.job, &mut self.batch);
            room = room.saturating_sub(pulled);
            // Not all at once: outputs may be waiting.
            let mut core = self.driver.fresh_core();
            let done = core
                .jobs
                .get(self.job)
                .is_none_or(|job| !job.done.list.is_empty());
            if done || self.available() > 0 {
                break;
            }
        }
    }

    /// In a forked copy of the leader: one error, and the end.
    #[cold]
    fn refuse(&mut self) -> Option<Result<R, TaskError>> {
        let task = match self.order {
            _ if self.input.is_none() && self.given == self.next => return None,
            Order::Ordered => self.given,
            Order::AsCompleted => self.next,
        };
        self.input = None;
        self.early.clear();
        self.given = self.next;
        let fault = Fault::Pool(self.driver.forked());
        Some(Err(TaskError { task, fault }))
    }

    /// Takes up to `room` tasks from the input into the batch.
    fn pull(&mut self, room: usize) -> usize {
        let started = Instant::now();
        let mut pulled = 0;
        let mut look = 1;
        while pulled < room && self.batch.bytes() < PULL_BYTES {
            let Some(task) = self.input.as_mut().and_then(Iterator::next) else {
                self.input = None;
                break;
            };
            let index = self.next;
            let pushed = self.batch.push(index, |draft| (self.encode)(task, draft));
            // Now, so that after a panic in what is the user's above, every index is somebody's.
            self.next += 1;
            pulled += 1;
            if let Err(reason) = pushed {
                let outcome = Outcome::Fault(Box::new(Fault::Task(reason)));
                self.refused.push_back(Completion { index, outcome });
            }
            if pulled == look {
                let elapsed = started.elapsed();
                if elapsed > PULL {
                    break;
                }
                // Half of what there is time for, if they go on as they began.
                let left = (PULL - elapsed).as_nanos() * pulled as u128 / elapsed.as_nanos().max(1);
                look += (left / 2).clamp(1, LOOK as u128) as usize;
            }
        }
        pulled
    }
}

impl<I: Iterator, R> Iterator for Map<'_, I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if !self.driver.is_here() {
                return self.refuse();
            }
            if self.credit > 0
                && let Some(result) = self.give()
            {
                self.credit -= 1;
                return Some(result);
            }
            self.tend();
            if !self.driver.is_here() {
                return self.refuse();
            }
            // Half of what is there, so that workers are looked after while the rest is used.
            self.credit = self.available() / 2 + 1;
            if let Some(result) = self.give() {
                self.credit -= 1;
                return Some(result);
            }
            if self.input.is_none() && self.given == self.next {
                return None;
            }
            let wants = !self.batch.is_empty() || self.appetite() > 0;
            let takes = self.input.is_some();
            let job = self.job;
            self.driver.wait(None, |core| {
                let done = core.jobs.get(job).is_none_or(|job| !job.done.list.is_empty());
                let interrupted = takes && core.interrupted().is_some();
                (done || interrupted || (wants && core.room() > 0)).then_some(())
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
        self.driver.abandon(self.job);
    }
}
