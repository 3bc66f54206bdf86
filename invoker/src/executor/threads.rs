//! [`Threads`]: ops in threads of this process, one model for all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use proc_pool::{Fault, TaskError, WorkerId};
use progress::Bar;

use super::call;
use crate::error::Error;
use crate::outputs::Order;
use crate::step::Tasks;

/// Tasks that wait for each thread, besides the one it has.
const WAITING: usize = 3;
/// Tasks that an ordered run takes in beyond the one it waits for.
const AHEAD: u64 = 1 << 14;

struct Job<T, R> {
    index: u64,
    task: T,
    reply: Sender<(u64, Result<R, Fault>)>,
}

/// Threads that wait for tasks. They end when this is dropped.
pub(crate) struct Threads<M, T, R> {
    pub(crate) model: Arc<M>,
    jobs: Option<Sender<Job<T, R>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<M, T, R> Threads<M, T, R>
where
    M: Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
{
    pub(crate) fn start<F>(workers: usize, model: M, op: F, bar: &Bar) -> Result<Self, Error>
    where
        F: Fn(&M, T) -> R + Copy + Send + 'static,
    {
        let model = Arc::new(model);
        let (sender, receiver) = crossbeam_channel::unbounded::<Job<T, R>>();
        let mut threads = Vec::with_capacity(workers);
        for index in 0..workers {
            let (model, receiver) = (model.clone(), receiver.clone());
            let mut tasks = Tasks::new(bar.counters());
            let work = move || {
                for Job {
                    index: task_index,
                    task,
                    reply,
                } in receiver
                {
                    let output = call(WorkerId(index as u32), || tasks.run(|| op(&model, task)));
                    // Nobody listens any more when the outputs were dropped.
                    let _ = reply.send((task_index, output));
                }
            };
            let thread = thread::Builder::new()
                .name(format!("invoker worker {index}"))
                .spawn(work);
            threads.push(thread.map_err(|source| Error::Os {
                step: "start a thread",
                source,
            })?);
        }
        Ok(Self {
            model,
            jobs: Some(sender),
            threads,
        })
    }

    pub(crate) fn run<I: Iterator<Item = T>>(&self, tasks: I, order: Order) -> Run<'_, M, T, R, I> {
        let (reply, replies) = crossbeam_channel::unbounded();
        Run {
            threads: self,
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
}

impl<M, T, R> Drop for Threads<M, T, R> {
    fn drop(&mut self) {
        // Hanging up is what ends them.
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The outputs of one run.
pub(crate) struct Run<'a, M, T, R, I> {
    threads: &'a Threads<M, T, R>,
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

impl<M, T, R, I: Iterator<Item = T>> Run<'_, M, T, R, I> {
    fn take_in(&mut self) {
        let most = self.threads.threads.len() * (1 + WAITING);
        while self.under_way < most && self.taken < self.given + AHEAD {
            let Some(task) = self.tasks.as_mut().and_then(Iterator::next) else {
                self.tasks = None;
                return;
            };
            let job = Job {
                index: self.taken,
                task,
                reply: self.reply.clone(),
            };
            self.taken += 1;
            self.under_way += 1;
            if let Some(jobs) = &self.threads.jobs {
                // The threads listen as long as `jobs` is there.
                let _ = jobs.send(job);
            }
        }
    }

    fn give(&mut self) -> Option<(u64, Result<R, Fault>)> {
        let output = self.ready.front_mut()?.take()?;
        self.ready.pop_front();
        Some((self.given, output))
    }
}

impl<M, T, R, I: Iterator<Item = T>> Iterator for Run<'_, M, T, R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.take_in();
            let output = match self.give() {
                Some(output) => output,
                None if self.under_way == 0 => return None,
                None => {
                    let (index, output) = self.replies.recv().ok()?;
                    self.under_way -= 1;
                    if self.order == Order::Ordered {
                        let place = (index - self.given) as usize;
                        if self.ready.len() <= place {
                            self.ready.resize_with(place + 1, || None);
                        }
                        self.ready[place] = Some(output);
                        continue;
                    }
                    (index, output)
                }
            };
            self.given += 1;
            let (task, output) = output;
            return Some(output.map_err(|fault| TaskError { task, fault }));
        }
    }
}
