//! [`LocalMap`]: the iterator over the outputs of a [`LocalPool`].

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proc_pool::facade::Window;
use proc_pool::{Fault, TaskError};
use run_journal::Order;

use super::chunk::{Chunk, Exchange, Indexed};
use super::threads::Job;
use super::{Backend, LocalPool};

/// Maximum number of tasks that an ordered map takes from its input beyond the one whose output is next.
const AHEAD: u64 = 1 << 15;
/// Number of chunks into which the tasks that wait for a thread are divided.
const CHUNKS: usize = 8;
/// Time for pulling tasks from the input, after which a chunk is sent to the threads.
const CHUNK_TIME: Duration = Duration::from_micros(100);
/// Maximum number of tasks that are pulled between two readings of the clock.
const TASKS_PER_READING: usize = 64;
/// How long the map waits for several outputs before it is content with one, and before it has idle threads look for tasks that wait
/// behind a slow one.
const PATIENCE: Duration = Duration::from_millis(2);

/// What sees the outputs of a map as they arrive, in the order of their completion, with the indices of their tasks.
pub(crate) type Tap<R> = Box<dyn FnMut(u64, &R) + Send + Sync>;

/// An iterator over the outputs of the tasks of a [`LocalPool`], like [`Map`](proc_pool::Map).
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub(crate) struct LocalMap<'p, T, R, I> {
    pool: &'p LocalPool<T, R>,
    tasks: Option<I>,
    order: Order,
    exchange: Arc<Exchange<T, R>>,
    /// Outputs that were taken, in the order of completion.
    taken_outputs: std::vec::IntoIter<Indexed<R>>,
    /// Number of outputs to return before the next exchange with the threads.
    credit: usize,
    /// Number of tasks taken from the input.
    taken: u64,
    /// Number of outputs returned.
    returned: u64,
    /// The index of the output that was returned last.
    last: u64,
    tap: Option<Tap<R>>,
    /// Number of tasks that were sent to threads, and whose outputs were not taken.
    in_progress: usize,
    /// Maximum number of tasks taken from the input whose outputs were not returned.
    max_in_flight: u64,
    /// Of an ordered map: outputs that have arrived. The index is relative to `returned`.
    ready: VecDeque<Option<Result<R, Box<Fault>>>>,
    window: Window,
    /// The work of the threads when it was last read: number of tasks, and nanoseconds.
    last_busy: (u64, u64),
}

impl<T, R, I> std::fmt::Debug for LocalMap<'_, T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalMap")
            .field("order", &self.order)
            .field("taken", &self.taken)
            .field("returned", &self.returned)
            .finish()
    }
}

impl<'p, T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> LocalMap<'p, T, R, I> {
    pub(super) fn new(pool: &'p LocalPool<T, R>, tasks: I, order: Order) -> Self {
        Self {
            pool,
            tasks: Some(tasks),
            order,
            exchange: Arc::new(Exchange::new(pool.workers())),
            taken_outputs: Vec::new().into_iter(),
            credit: 0,
            taken: 0,
            returned: 0,
            last: 0,
            tap: None,
            in_progress: 0,
            max_in_flight: u64::MAX,
            ready: VecDeque::new(),
            window: Window::default(),
            last_busy: pool.shared.busy.get(),
        }
    }

    /// Limits the tasks in flight: see [`Map::set_max_in_flight`](proc_pool::Map::set_max_in_flight).
    pub(crate) fn set_max_in_flight(&mut self, tasks: usize) {
        self.max_in_flight = tasks.max(1) as u64;
    }

    /// Has `tap` called with each output.
    pub(crate) fn set_tap(&mut self, tap: Tap<R>) {
        self.tap = Some(tap);
    }

    /// Returns the index of the output that was returned last.
    pub(crate) fn last_task(&self) -> u64 {
        self.last
    }

    /// Takes the next task from the input, with its index. Returns `None` after the last one, or if the pool was interrupted.
    fn take(&mut self) -> Option<(u64, T)> {
        if self.pool.interrupted().is_some() {
            self.tasks = None;
        }
        let task = self.tasks.as_mut().and_then(Iterator::next);
        if task.is_none() {
            self.tasks = None;
        }
        let index = self.taken;
        self.taken += u64::from(task.is_some());
        Some((index, task?))
    }

    /// Returns how many more tasks may be taken from the input.
    fn input_budget(&self) -> usize {
        let ahead = match self.order {
            Order::Ordered => self.max_in_flight.min(AHEAD),
            Order::AsCompleted => self.max_in_flight,
        };
        match self.tasks {
            Some(_) => self.returned.saturating_add(ahead).saturating_sub(self.taken) as usize,
            None => 0,
        }
    }

    /// Sends tasks to the threads, as many as they should have. Stops early if outputs are there.
    fn send_tasks(&mut self) {
        let busy = self.pool.shared.busy.get();
        self.window
            .observe(busy.0 - self.last_busy.0, busy.1 - self.last_busy.1);
        self.last_busy = busy;
        // One that runs and one that waits, at least; no more than there is room for their outputs.
        let window = self.window.tasks().min(Exchange::<T, R>::capacity()).max(2);
        let most = self.pool.workers() * window;
        while self.in_progress < most {
            let chunk = window.div_ceil(CHUNKS).min(most - self.in_progress);
            let first = self.taken;
            let tasks = self.pull(chunk.min(self.input_budget()));
            if tasks.is_empty() {
                return;
            }
            self.in_progress += tasks.len();
            let exchange = self.exchange.clone();
            self.pool.send(Job::Chunk(Chunk {
                first,
                tasks,
                exchange,
            }));
            if self.in_progress > most / 2 && self.exchange.len() > 0 {
                return;
            }
        }
    }

    /// Takes up to `most` tasks from the input.
    fn pull(&mut self, most: usize) -> Vec<T> {
        let mut tasks = Vec::with_capacity(most);
        let started = Instant::now();
        let mut next_reading = 1;
        while tasks.len() < most && self.pool.interrupted().is_none() {
            let Some(task) = self.tasks.as_mut().and_then(Iterator::next) else {
                self.tasks = None;
                break;
            };
            tasks.push(task);
            self.taken += 1;
            if tasks.len() == next_reading {
                if started.elapsed() > CHUNK_TIME {
                    break;
                }
                next_reading += next_reading.min(TASKS_PER_READING);
            }
        }
        if self.pool.interrupted().is_some() {
            self.tasks = None;
        }
        tasks
    }

    /// Runs the next task in this thread.
    fn next_of_caller(&mut self) -> Option<Indexed<R>> {
        let (index, task) = self.take()?;
        let output = self.pool.call_here(task);
        if let (Some(tap), Ok(output)) = (&mut self.tap, &output) {
            tap(index, output);
        }
        Some((index, output))
    }

    /// Returns one error, and then ends: a forked copy of the process has no threads.
    #[cold]
    fn fail_forked(&mut self) -> Option<Result<R, TaskError>> {
        self.tasks.take()?;
        self.in_progress = 0;
        self.ready.clear();
        self.taken_outputs = Vec::new().into_iter();
        let task = self.returned;
        let fault = Fault::Pool(self.pool.forked()?);
        Some(Err(TaskError { task, fault }))
    }

    /// Returns the next output, if it was taken.
    #[inline]
    fn next_taken(&mut self) -> Option<Indexed<R>> {
        if self.order == Order::AsCompleted && self.tap.is_none() {
            return self.taken_outputs.next();
        }
        self.next_taken_in_order()
    }

    /// The part of [`next_taken`](Self::next_taken) for an ordered map, or one whose outputs are seen as they arrive.
    fn next_taken_in_order(&mut self) -> Option<Indexed<R>> {
        if self.order == Order::Ordered
            && let Some(output) = self.ready.front_mut().and_then(Option::take)
        {
            self.ready.pop_front();
            return Some((self.returned, output));
        }
        for (index, output) in self.taken_outputs.by_ref() {
            if let (Some(tap), Ok(output)) = (&mut self.tap, &output) {
                tap(index, output);
            }
            if self.order == Order::AsCompleted {
                return Some((index, output));
            }
            if index == self.returned {
                self.ready.pop_front();
                return Some((index, output));
            }
            let position = (index - self.returned) as usize;
            if self.ready.len() <= position {
                self.ready.resize_with(position + 1, || None);
            }
            self.ready[position] = Some(output);
        }
        None
    }

    /// Takes outputs from the threads, and sends them tasks.
    fn exchange(&mut self) {
        if self.taken_outputs.len() == 0 {
            let mut outputs = Vec::new();
            self.exchange.take(&mut outputs);
            self.in_progress -= outputs.len();
            self.taken_outputs = outputs.into_iter();
        }
        self.send_tasks();
    }

    /// Returns the next output, if it was taken and no exchange with the threads comes before.
    #[inline]
    fn next_credited(&mut self) -> Option<Indexed<R>> {
        if self.credit == 0 {
            return None;
        }
        let output = self.next_taken()?;
        self.credit -= 1;
        Some(output)
    }

    fn next_from_threads(&mut self) -> Option<Indexed<R>> {
        let mut wanted = None;
        loop {
            self.exchange();
            // Half of them, so that the threads get new tasks before the other half is used.
            self.credit = self.taken_outputs.len() / 2 + 1;
            if let Some(output) = self.next_taken() {
                self.credit -= 1;
                return Some(output);
            }
            if self.in_progress == 0 {
                return None;
            }
            // First half of the outputs, so that this thread is woken rarely; then any.
            let several = *wanted.get_or_insert((self.in_progress / 2).max(1));
            if !self.exchange.wait(several, PATIENCE) {
                wanted = Some(1);
                if self.pool.shared.waiting.is_empty() {
                    self.pool.send(Job::Look);
                }
            }
        }
    }
}

impl<T, R, I> Drop for LocalMap<'_, T, R, I> {
    fn drop(&mut self) {
        self.exchange.withdraw();
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> Iterator for LocalMap<'_, T, R, I> {
    type Item = Result<R, TaskError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.pool.is_forked() {
            return self.fail_forked();
        }
        let (task, output) = match &self.pool.backend {
            Backend::Threads { .. } => match self.next_credited() {
                Some(output) => output,
                None => self.next_from_threads()?,
            },
            Backend::Caller { .. } => self.next_of_caller()?,
        };
        self.returned += 1;
        self.last = task;
        // Not by `map_err`: an output then is not copied with the room for an error.
        match output {
            Ok(output) => Some(Ok(output)),
            Err(fault) => Some(Err(TaskError { task, fault: *fault })),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let taken = (self.taken - self.returned) as usize;
        let (low, high) = self.tasks.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        (
            low.saturating_add(taken),
            high.and_then(|high| high.checked_add(taken)),
        )
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> FusedIterator for LocalMap<'_, T, R, I> {}
