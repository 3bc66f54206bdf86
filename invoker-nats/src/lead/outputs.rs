//! [`Outputs`]: the iterator over the outputs of a run on several machines.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Instant;

use proc_pool::TaskError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Leader;
use super::job::{Job, Output};
use crate::batcher::Draft;

/// No tasks are taken from the input while more outputs than this, in number or bytes, wait to be taken by the caller.
const MAX_BUFFERED: usize = 1 << 18;
const MAX_BUFFERED_BYTES: usize = 64 << 20;

/// An iterator over the outputs of a run, as they become available: `Ok`, or the error of that task.
///
/// It takes tasks from the input only while the caller waits for an output or takes one. Dropping it abandons the tasks that are open:
/// nodes may run them, and their outputs are dropped.
#[must_use = "iterators are lazy: tasks run while outputs are taken"]
pub struct Outputs<'a, T, R, I: Iterator<Item = T>> {
    leader: &'a Leader<T, R>,
    input: Option<I>,
    number: u32,
    job: Arc<Job<R>>,
    draft: Draft,
    /// Tasks taken from the input.
    taken: u64,
    returned: u64,
    ready: VecDeque<(u64, Output<R>)>,
}

impl<'a, T, R, I: Iterator<Item = T>> Outputs<'a, T, R, I> {
    pub(super) fn new(leader: &'a Leader<T, R>, input: I, number: u32, job: Arc<Job<R>>) -> Self {
        Self {
            leader,
            input: Some(input),
            number,
            job,
            draft: Draft::default(),
            taken: 0,
            returned: 0,
            ready: VecDeque::new(),
        }
    }
}

impl<T, R, I: Iterator<Item = T>> std::fmt::Debug for Outputs<'_, T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs")
            .field("taken", &self.taken)
            .field("returned", &self.returned)
            .finish()
    }
}

impl<T, R, I> Outputs<'_, T, R, I>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
    I: Iterator<Item = T>,
{
    /// Returns whether a batch may be taken from the input.
    fn has_room(&self) -> bool {
        let leader = self.leader;
        // Both numbers change under the lock, before those who wait are woken.
        if self.input.is_none() || leader.shared.open_ranges() >= leader.window() {
            return false;
        }
        let (outputs, bytes) = self.job.buffered();
        outputs < MAX_BUFFERED && bytes < MAX_BUFFERED_BYTES
    }

    /// Takes tasks for one batch from the input, and sends it.
    fn take_batch(&mut self) {
        let Some(mut input) = self.input.take() else {
            return;
        };
        let shared = &self.leader.shared;
        let (low, high) = input.size_hint();
        let limits = {
            let core = shared.core();
            let nodes = core.accounting.present_nodes();
            core.batcher.limits(high.filter(|high| *high == low), nodes)
        };
        let mut ended = false;
        loop {
            let Some(task) = input.next() else {
                ended = true;
                break;
            };
            let index = self.taken;
            self.taken += 1;
            let found = |task: &[u8]| match shared.resumable {
                true => shared.core().take_found(self.number, index, task),
                false => None,
            };
            if let Some(output) = shared.add(&mut self.draft, index, task, found) {
                self.send();
                self.job.put(index, output);
                shared.core().accounting.skip(self.number);
                continue;
            }
            if self.draft.overflows(limits) {
                // The task belongs to the next batch.
                let task = self.draft.remove_last();
                self.send();
                self.draft.encoded = task;
                self.draft.end_task();
                break;
            }
            if self.draft.is_full(limits, Instant::now) {
                self.send();
                break;
            }
        }
        if !ended {
            self.input = Some(input);
        }
    }

    fn send(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        if !draft.tasks.is_empty() {
            let shared = &self.leader.shared;
            shared.open(shared.core(), self.number, draft);
        }
    }
}

impl<T, R, I> Iterator for Outputs<'_, T, R, I>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
    I: Iterator<Item = T>,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Result<R, TaskError>> {
        loop {
            // Also while outputs are there, so that no node waits.
            if self.has_room() {
                self.take_batch();
            }
            if self.ready.is_empty() {
                self.job.take(&mut self.ready);
            }
            if let Some((task, output)) = self.ready.pop_front() {
                self.returned += 1;
                return Some(output.map_err(|fault| TaskError { task, fault: *fault }));
            }
            // Before a wait, whatever its size.
            self.send();
            if self.input.is_none() && self.returned == self.taken {
                return None;
            }
            let core = self.leader.shared.core();
            self.job.take(&mut self.ready);
            if self.ready.is_empty() && !self.has_room() {
                drop(self.leader.shared.wait(core));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let open = (self.taken - self.returned) as usize;
        match &self.input {
            None => (open, Some(open)),
            Some(input) => {
                let (low, high) = input.size_hint();
                (
                    low.saturating_add(open),
                    high.and_then(|high| high.checked_add(open)),
                )
            }
        }
    }
}

impl<T, R, I> FusedIterator for Outputs<'_, T, R, I>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
    I: Iterator<Item = T>,
{
}

impl<T, R, I: Iterator<Item = T>> Drop for Outputs<'_, T, R, I> {
    fn drop(&mut self) {
        let mut core = self.leader.shared.core();
        core.accounting.abandon(self.number);
        core.jobs.remove(&self.number);
        self.leader.shared.changed(core);
    }
}
