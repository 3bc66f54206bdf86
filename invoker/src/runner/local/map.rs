//! [`LocalMap`]: the iterator over the outputs of a [`LocalPool`].

use std::collections::VecDeque;
use std::iter::FusedIterator;

use crossbeam_channel::{Receiver, Sender};
use proc_pool::{Fault, TaskError};

use super::Order;
use super::{Backend, Job, LocalPool, Reply};

/// Number of tasks that wait for each thread, in addition to the one that it runs.
const WAITING: usize = 3;
/// Maximum number of tasks that an ordered map takes from its input beyond the one whose output is next.
const AHEAD: u64 = 1 << 14;

/// An iterator over the outputs of the tasks of a [`LocalPool`], like [`Map`](proc_pool::Map).
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub(crate) struct LocalMap<'p, T, R, I> {
    pool: &'p LocalPool<T, R>,
    tasks: Option<I>,
    order: Order,
    reply: Sender<(u64, Result<R, Fault>)>,
    replies: Receiver<(u64, Result<R, Fault>)>,
    /// Number of tasks taken from the input.
    taken: u64,
    /// Number of outputs returned.
    returned: u64,
    /// Number of tasks that were sent to threads and have no output yet.
    in_progress: usize,
    /// Maximum number of tasks taken from the input whose outputs were not returned.
    max_in_flight: u64,
    /// Of an ordered map: outputs that have arrived. The index is relative to `returned`.
    ready: VecDeque<Option<Result<R, Fault>>>,
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
        let (reply, replies) = crossbeam_channel::unbounded();
        Self {
            pool,
            tasks: Some(tasks),
            order,
            reply,
            replies,
            taken: 0,
            returned: 0,
            in_progress: 0,
            max_in_flight: u64::MAX,
            ready: VecDeque::new(),
        }
    }

    /// Limits the tasks in flight: see [`Map::set_max_in_flight`](proc_pool::Map::set_max_in_flight).
    pub(crate) fn set_max_in_flight(&mut self, tasks: usize) {
        self.max_in_flight = tasks.max(1) as u64;
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

    /// Sends tasks to the threads, as many as they should have.
    fn send_tasks(&mut self) {
        let most = self.pool.workers() * (1 + WAITING);
        let ahead = self.max_in_flight.min(AHEAD);
        while self.in_progress < most && self.taken < self.returned + ahead {
            let Some((index, task)) = self.take() else { return };
            self.in_progress += 1;
            let reply = Reply::Map(self.reply.clone());
            self.pool.send(Job { index, task, reply });
        }
    }

    /// Returns the next output of an ordered map, if it has arrived.
    fn next_ready(&mut self) -> Option<(u64, Result<R, Fault>)> {
        let output = self.ready.front_mut()?.take()?;
        self.ready.pop_front();
        Some((self.returned, output))
    }

    fn next_from_threads(&mut self) -> Option<(u64, Result<R, Fault>)> {
        loop {
            self.send_tasks();
            if let Some(output) = self.next_ready() {
                return Some(output);
            }
            if self.in_progress == 0 {
                return None;
            }
            let (index, output) = self.replies.recv().ok()?;
            self.in_progress -= 1;
            if self.order == Order::AsCompleted {
                return Some((index, output));
            }
            let position = (index - self.returned) as usize;
            if self.ready.len() <= position {
                self.ready.resize_with(position + 1, || None);
            }
            self.ready[position] = Some(output);
        }
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> Iterator for LocalMap<'_, T, R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.pool.forked() {
            // Return one error, then end.
            self.tasks.take()?;
            self.in_progress = 0;
            self.ready.clear();
            let task = self.returned;
            let fault = Fault::Pool(error);
            return Some(Err(TaskError { task, fault }));
        }
        let (task, output) = match &self.pool.backend {
            Backend::Threads { .. } => self.next_from_threads()?,
            Backend::Caller { .. } => {
                let (index, task) = self.take()?;
                (index, self.pool.call_here(task))
            }
        };
        self.returned += 1;
        Some(output.map_err(|fault| TaskError { task, fault }))
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
