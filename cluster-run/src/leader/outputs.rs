//! [`Outputs`]: the iterator over the outputs of a job.

use std::iter::FusedIterator;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use proc_pool::TaskError;
use run_journal::Order;

use super::lock;
use super::ready::Ready;
use super::receiver::{Decoder, Run};
use super::state::LeaderState;
use crate::batcher::Draft;
use crate::value::Value;

/// No tasks are taken from the input while more outputs than this, in number or bytes, wait to be taken by the caller.
const MAX_BUFFERED: usize = 1 << 18;
const MAX_BUFFERED_BYTES: usize = 64 << 20;

/// The most bytes of a message with tasks besides these.
const HEADER: usize = 64;

/// An iterator over the outputs of a job, as they become available: `Ok`, or the error of that task.
///
/// It takes tasks from the input only while the caller waits for an output or takes one. Dropping it abandons the tasks that are open:
/// nodes may run them, and their outputs are dropped.
#[must_use = "iterators are lazy: tasks run while outputs are taken"]
pub struct Outputs<'a, T, R, I: Iterator<Item = T>> {
    leader: &'a LeaderState,
    input: Option<I>,
    number: u32,
    draft: Draft,
    /// The encoding of the last task.
    encoded: Vec<u8>,
    /// Tasks taken from the input.
    taken: u64,
    /// The outcomes that the engine has received.
    received: Arc<Mutex<Vec<Run<R>>>>,
    ready: Ready<R>,
}

impl<'a, T: Value, R: Value, I: Iterator<Item = T>> Outputs<'a, T, R, I> {
    pub(super) fn new(leader: &'a LeaderState, input: I, order: Order) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let into = received.clone();
        let receiver = Decoder::new(move |mut runs: Vec<Run<R>>| lock(&into).append(&mut runs));
        Self {
            leader,
            input: Some(input),
            number: leader.core().add_job(receiver),
            draft: Draft::default(),
            encoded: Vec::new(),
            taken: 0,
            received,
            ready: Ready::new(order),
        }
    }

    /// Returns whether a batch may be taken from the input.
    fn has_room(&self) -> bool {
        let is_full = self.ready.len() >= MAX_BUFFERED || self.ready.bytes() >= MAX_BUFFERED_BYTES;
        self.input.is_some() && !is_full && self.leader.has_room()
    }

    /// Takes tasks for one batch from the input, and sends it.
    fn take_batch(&mut self) {
        let Some(mut input) = self.input.take() else {
            return;
        };
        let leader = self.leader;
        let (low, high) = input.size_hint();
        let tasks = {
            let core = leader.core();
            let nodes = core.accounting.present_nodes();
            core.batcher.tasks(high.filter(|high| *high == low), nodes)
        };
        let most = leader.max_message.saturating_sub(HEADER);
        while let Some(task) = input.next() {
            let index = self.taken;
            self.taken += 1;
            let found = |encoded: &[u8]| match leader.manifest.resumable {
                true => leader.core().take_found(self.number, index, encoded),
                false => None,
            };
            if let Some(output) = leader.encode(index, task, &mut self.encoded, found) {
                self.send();
                leader.core().accounting.skip(self.number);
                self.ready.add(Run::one(index, output, 0));
                continue;
            }
            let starts_next = self.draft.has_no_room(self.encoded.len(), most);
            if starts_next {
                self.send();
            }
            self.draft.push(&mut self.encoded);
            if starts_next || self.draft.is_full(tasks, Instant::now) {
                if !starts_next {
                    self.send();
                }
                self.input = Some(input);
                return;
            }
        }
    }

    fn send(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        if draft.len() > 0 {
            let leader = self.leader;
            leader.update(|core| core.accounting.open(self.number, draft));
        }
    }

    /// Takes what was received.
    fn collect_received(&mut self) {
        let received = std::mem::take(&mut *lock(&self.received));
        received.into_iter().for_each(|run| self.ready.add(run));
    }
}

impl<T: Value, R: Value, I: Iterator<Item = T>> Iterator for Outputs<'_, T, R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Result<R, TaskError>> {
        loop {
            // Also while outputs are there, so that no node waits.
            if self.has_room() {
                self.collect_received();
                if self.has_room() {
                    self.take_batch();
                }
            }
            if !self.ready.has_next() {
                self.collect_received();
            }
            if let Some((task, output)) = self.ready.next() {
                return Some(output.map_err(|fault| TaskError { task, fault: *fault }));
            }
            // Before a wait, whatever its size.
            self.send();
            if self.input.is_none() && self.ready.returned() == self.taken {
                return None;
            }
            let leader = self.leader;
            let core = leader.core();
            self.collect_received();
            if !self.ready.has_next() && !self.has_room() {
                drop(leader.wait(core));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let open = (self.taken - self.ready.returned()) as usize;
        let (low, high) = self.input.as_ref().map_or((0, Some(0)), I::size_hint);
        (
            low.saturating_add(open),
            high.and_then(|high| high.checked_add(open)),
        )
    }
}

impl<T: Value, R: Value, I: Iterator<Item = T>> FusedIterator for Outputs<'_, T, R, I> {}

impl<T, R, I: Iterator<Item = T>> Drop for Outputs<'_, T, R, I> {
    fn drop(&mut self) {
        self.leader.update(|core| {
            core.accounting.abandon(self.number);
            core.jobs.remove(&self.number);
        });
    }
}

impl<T, R, I: Iterator<Item = T>> std::fmt::Debug for Outputs<'_, T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (taken, returned) = (self.taken, self.ready.returned());
        write!(f, "Outputs {{ taken: {taken}, returned: {returned} }}")
    }
}
