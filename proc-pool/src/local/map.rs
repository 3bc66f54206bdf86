//! [`LocalMap`]: the iterator over the outputs of a [`LocalPool`].

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender};

use super::{Hands, Job, LocalPool, Reply};
use crate::error::{Fault, TaskError};
use crate::map::Order;

/// Tasks that wait for each thread, besides the one it has.
const WAITING: usize = 3;
/// Tasks that an ordered map takes in beyond the one it waits for.
const AHEAD: u64 = 1 << 14;

/// The outputs of a [`LocalPool`]'s tasks, as [`Map`](crate::Map).
pub struct LocalMap<'p, T, R, I> {
    pool: &'p LocalPool<T, R>,
    tasks: Option<I>,
    order: Order,
    reply: Sender<(u64, Result<R, Fault>)>,
    replies: Receiver<(u64, Result<R, Fault>)>,
    taken: u64,
    given: u64,
    under_way: usize,
    /// In order: by index from `given` on.
    ready: VecDeque<Option<Result<R, Fault>>>,
}

impl<T, R, I> std::fmt::Debug for LocalMap<'_, T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalMap")
            .field("order", &self.order)
            .field("taken", &self.taken)
            .field("given", &self.given)
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
            given: 0,
            under_way: 0,
            ready: VecDeque::new(),
        }
    }

    /// The next task and its index, unless there is none or the pool was interrupted.
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

    /// Gives the threads tasks.
    fn take_in(&mut self) {
        let most = self.pool.workers() * (1 + WAITING);
        while self.under_way < most && self.taken < self.given + AHEAD {
            let Some((index, task)) = self.take() else { return };
            self.under_way += 1;
            let reply = Reply::Map(self.reply.clone());
            self.pool.send(Job { index, task, reply });
        }
    }

    fn give(&mut self) -> Option<(u64, Result<R, Fault>)> {
        let output = self.ready.front_mut()?.take()?;
        self.ready.pop_front();
        Some((self.given, output))
    }

    fn next_of_threads(&mut self) -> Option<(u64, Result<R, Fault>)> {
        loop {
            self.take_in();
            if let Some(output) = self.give() {
                return Some(output);
            }
            if self.under_way == 0 {
                return None;
            }
            let (index, output) = self.replies.recv().ok()?;
            self.under_way -= 1;
            if self.order == Order::AsCompleted {
                return Some((index, output));
            }
            let place = (index - self.given) as usize;
            if self.ready.len() <= place {
                self.ready.resize_with(place + 1, || None);
            }
            self.ready[place] = Some(output);
        }
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> Iterator for LocalMap<'_, T, R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.pool.forked() {
            // One error, and the end.
            self.tasks.take()?;
            self.under_way = 0;
            self.ready.clear();
            let task = self.given;
            let fault = Fault::Pool(error);
            return Some(Err(TaskError { task, fault }));
        }
        let (task, output) = match &self.pool.hands {
            Hands::Threads { .. } => self.next_of_threads()?,
            Hands::Caller { .. } => {
                let (index, task) = self.take()?;
                (index, self.pool.call_here(task))
            }
        };
        self.given += 1;
        Some(output.map_err(|fault| TaskError { task, fault }))
    }
}
