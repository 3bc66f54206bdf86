//! [`Accounting`]: which tasks are open, which node has them, and what a lost node costs. A pure state machine: it has no clock, and
//! makes no calls.
//!
//! Each open task is in one *batch*: successive tasks of a job, as they were taken from its input, or, after a loss, those of them that
//! are sent again. Tasks that a lost node had started run alone then, one after the other. The first valid answer to a task wins.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use log_bridge::relay::{Received, Records};
use proc_pool::Fault;

use crate::batcher::Draft;
use crate::messages::{Answer, BatchId, End, Join, NodeCounts};
use crate::report::{ClusterReport, NodeEnd, NodeRow};

/// The most tasks of a batch that must run alone.
const SUSPECTS: usize = 64;

/// What follows from a call.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a batch.
    Send(BatchId),
    /// The task has no output.
    Fail { job: u32, index: u64, fault: Fault },
}

/// A node that has joined.
struct Node {
    id: u64,
    /// When it was last heard.
    seen: Instant,
    logs: Received,
}

pub(crate) struct Batch {
    number: u64,
    pub(crate) tasks: Draft,
    /// Whether each task has no output yet.
    is_open: Vec<bool>,
    /// The number of these tasks.
    open: usize,
    /// How many nodes were lost with each task. Empty: none.
    losses: Vec<u32>,
    pub(crate) alone: bool,
    /// The node that has it, and which of its tasks may have started there, and not ended.
    holder: Option<(u64, Range<usize>)>,
    /// When it was sent; `None` while that is under way.
    sent: Option<Instant>,
    /// Why an answer to it could not be decoded.
    malformed: Option<String>,
}

#[derive(Default)]
pub(crate) struct Accounting {
    node_losses: u32,
    ack_wait: Duration,
    /// By job, and the index of their first task.
    batches: BTreeMap<(u32, u64), Batch>,
    next_number: u64,
    /// The number of tasks of each job so far.
    taken: HashMap<u32, u64>,
    /// Those of the report's rows.
    nodes: Vec<Node>,
    pub(crate) report: ClusterReport,
    pub(crate) actions: Vec<Action>,
    last_tick: Option<Instant>,
}

impl Accounting {
    /// `first_number` must be higher than the number of any batch of an earlier leader of the run.
    pub(crate) fn new(node_losses: u32, ack_wait: Duration, first_number: u64) -> Self {
        Self {
            node_losses,
            ack_wait,
            next_number: first_number,
            ..Self::default()
        }
    }

    /// The number of batches with open tasks.
    pub(crate) fn open_batches(&self) -> usize {
        self.batches.len()
    }

    pub(crate) fn present_nodes(&self) -> usize {
        self.present().count()
    }

    /// The number of workers of the nodes that are present.
    pub(crate) fn present_workers(&self) -> usize {
        self.present().map(|row| row.workers as usize).sum()
    }

    fn present(&self) -> impl Iterator<Item = &NodeRow> {
        let rows = self.report.nodes.iter();
        rows.filter(|row| row.end == NodeEnd::Present)
    }

    /// The bytes of the tasks in batches with open tasks.
    pub(crate) fn open_bytes(&self) -> usize {
        self.batches.values().map(|batch| batch.tasks.encoded.len()).sum()
    }

    /// Opens the next tasks of a job.
    pub(crate) fn open(&mut self, job: u32, tasks: Draft) {
        let first = self.taken(job);
        self.taken.insert(job, first + tasks.len() as u64);
        self.add(job, first, tasks, Vec::new(), false);
    }

    /// The number of tasks of a job so far: the index of its next one.
    pub(crate) fn taken(&self, job: u32) -> u64 {
        self.taken.get(&job).copied().unwrap_or(0)
    }

    /// Counts a task of a job that needs no answer, because its output is known.
    pub(crate) fn skip(&mut self, job: u32) {
        *self.taken.entry(job).or_default() += 1;
    }

    fn add(&mut self, job: u32, first: u64, tasks: Draft, losses: Vec<u32>, alone: bool) {
        let number = self.next_number;
        self.next_number += 1;
        let batch = Batch {
            number,
            is_open: vec![true; tasks.len()],
            open: tasks.len(),
            losses,
            tasks,
            alone,
            holder: None,
            sent: None,
            malformed: None,
        };
        self.batches.insert((job, first), batch);
        self.actions.push(Action::Send(BatchId { job, first, number }));
    }

    /// Returns a batch with open tasks.
    pub(crate) fn batch(&mut self, id: &BatchId) -> Option<&mut Batch> {
        let batch = self.batches.get_mut(&(id.job, id.first));
        batch.filter(|batch| batch.number == id.number)
    }

    pub(crate) fn sent(&mut self, id: &BatchId, now: Instant) {
        if let Some(batch) = self.batch(id) {
            batch.sent = Some(now);
        }
    }

    /// Sends the batches again that were sent before `since`, and that no node has: the stream has lost them.
    pub(crate) fn resend_unclaimed(&mut self, since: Instant) {
        let batches = self.batches.iter_mut();
        for (&(job, first), batch) in batches.filter(|(_, batch)| batch.is_unclaimed(since)) {
            let number = batch.number;
            batch.sent = None;
            self.report.resent += 1;
            self.actions.push(Action::Send(BatchId { job, first, number }));
        }
    }

    /// Returns whether a node has joined.
    pub(crate) fn is_known(&self, node: u64) -> bool {
        self.node(node).is_some()
    }

    /// Returns the position of a node that has joined.
    fn node(&self, id: u64) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    pub(crate) fn join(&mut self, join: Join, now: Instant) {
        if !self.beat(join.node, None, now) {
            let (id, seen, logs) = (join.node, now, Received::default());
            self.nodes.push(Node { id, seen, logs });
            self.report.nodes.push(NodeRow::new(join));
        }
    }

    /// A node is alive. Returns whether it has joined.
    pub(crate) fn beat(&mut self, node: u64, counts: Option<NodeCounts>, now: Instant) -> bool {
        let Some(at) = self.node(node) else {
            return false;
        };
        let row = &mut self.report.nodes[at];
        (row.end, self.nodes[at].seen) = (NodeEnd::Present, now);
        if let Some(counts) = counts {
            (row.failed, row.worker_deaths, row.pss) = (counts.failed, counts.worker_deaths, counts.pss);
        }
        true
    }

    pub(crate) fn leave(&mut self, node: u64) {
        if let Some(at) = self.node(node) {
            self.report.nodes[at].end = NodeEnd::Left;
        }
    }

    /// Counts what a node has logged. Returns its name, and how many more records were dropped or lost than before.
    pub(crate) fn count_records(&mut self, node: u64, records: &Records) -> Option<(String, u64)> {
        let at = self.node(node)?;
        let (logs, row) = (&mut self.nodes[at].logs, &mut self.report.nodes[at]);
        let missing = logs.count(records);
        (row.logs, row.logs_missing) = (logs.received(), logs.missing());
        row.last_records = logs.last_records().map(str::to_owned).collect();
        Some((row.name.clone(), missing))
    }

    /// A node that has joined is about to run tasks of a batch, at these positions. Returns whether it may.
    pub(crate) fn begin(&mut self, node: u64, id: BatchId, tasks: Range<usize>) -> bool {
        let Some(batch) = self.batch(&id) else {
            return false;
        };
        match &mut batch.holder {
            Some((holder, begun)) if *holder == node => {
                *begun = tasks.start.max(begun.start)..tasks.end.max(begun.end);
            }
            Some(_) => return false,
            // A node has answered some, and was lost before the leader knew that it had them. Only the others run again.
            None if batch.open < batch.tasks.len() => {
                self.end((id.job, id.first), End::Released);
                return false;
            }
            None => batch.holder = Some((node, tasks)),
        }
        true
    }

    /// Takes in an answer. Closes the tasks whose outcomes are the first ones, and calls `accept` with the number of each of these in the
    /// answer; its error is that of an output which cannot be decoded.
    pub(crate) fn answer(
        &mut self,
        node: u64,
        answer: &Answer,
        mut accept: impl FnMut(usize) -> Result<(), String>,
    ) {
        let job = answer.batch.job;
        let (taken, delivered) = (self.taken(job), self.report.delivered);
        let begun = self.answer_run(answer, &mut accept);
        // As a rule, all of them are in one batch.
        let mut found: Option<(u64, &mut Batch)> = None;
        for (at, outcome) in answer.outcomes.iter().enumerate().skip(begun) {
            let index = answer.batch.first.saturating_add(outcome.at.into());
            if found
                .as_ref()
                .is_none_or(|(first, batch)| !batch.has(*first, index))
            {
                let mut before = self.batches.range_mut((job, 0)..=(job, index));
                found = before.next_back().map(|(key, batch)| (key.1, batch));
            }
            let batch = found.as_mut().filter(|(first, batch)| batch.has(*first, index));
            let count = match batch {
                None if index < taken => &mut self.report.duplicates,
                None => &mut self.report.invalid,
                Some((first, batch)) => {
                    let task = (index - *first) as usize;
                    if batch.tasks.hashes[task] != outcome.hash {
                        &mut self.report.invalid
                    } else if !batch.is_open[task] {
                        &mut self.report.duplicates
                    } else if let Err(reason) = accept(at) {
                        batch.malformed = Some(reason);
                        &mut self.report.invalid
                    } else {
                        (batch.is_open[task], batch.open) = (false, batch.open - 1);
                        &mut self.report.delivered
                    }
                }
            };
            *count += 1;
        }
        self.batches.retain(|_, batch| batch.open > 0);
        if let Some(at) = self.node(node) {
            self.report.nodes[at].delivered += self.report.delivered - delivered;
        }
        if let (Some(end), Some(batch)) = (answer.end, self.batch(&answer.batch))
            && batch.holder.as_ref().is_some_and(|(holder, _)| *holder == node)
        {
            self.end((job, answer.batch.first), end);
        }
    }

    /// Takes in the first outcomes of an answer, up to one that cannot be decoded, if all of them are those of successive open tasks of
    /// one batch, as usual. Returns their number.
    fn answer_run(&mut self, answer: &Answer, mut accept: impl FnMut(usize) -> Result<(), String>) -> usize {
        let (job, outcomes) = (answer.batch.job, &answer.outcomes);
        let Some(position) = outcomes.positions().successive_from() else {
            return 0;
        };
        let index = answer.batch.first.saturating_add(position.into());
        let mut before = self.batches.range_mut((job, 0)..=(job, index));
        let Some((&(_, first), batch)) = before.next_back() else {
            return 0;
        };
        let start = usize::try_from(index - first).unwrap_or(usize::MAX);
        let tasks = start..start.saturating_add(outcomes.len());
        let is_usual = match (
            batch.is_open.get(tasks.clone()),
            batch.tasks.hashes.get(tasks.clone()),
        ) {
            (Some(is_open), Some(hashes)) => !is_open.contains(&false) && outcomes.have_hashes(hashes),
            _ => false,
        };
        if !is_usual {
            return 0;
        }
        let accepted = (0..outcomes.len()).take_while(|at| accept(*at).is_ok()).count();
        batch.is_open[start..start + accepted].fill(false);
        batch.open -= accepted;
        self.report.delivered += accepted as u64;
        accepted
    }

    /// Looks for lost nodes. Time in which this was not called does not count: the leader was stopped, or had no connection, and has not
    /// heard its nodes.
    pub(crate) fn tick(&mut self, now: Instant) {
        let last = self.last_tick.replace(now).unwrap_or(now);
        let gap = now.saturating_duration_since(last);
        let is_silent = |node: &Node| now.saturating_duration_since(node.seen) > self.ack_wait;
        for (node, row) in self.nodes.iter_mut().zip(&mut self.report.nodes) {
            if gap > self.ack_wait / 4 {
                node.seen += gap;
            }
            if is_silent(node) && row.end == NodeEnd::Present {
                row.end = NodeEnd::Lost;
                self.report.nodes_lost += 1;
            }
        }
        let silent: Vec<u64> = self
            .nodes
            .iter()
            .filter(|node| is_silent(node))
            .map(|node| node.id)
            .collect();
        let is_lost = |batch: &Batch| {
            batch
                .holder
                .as_ref()
                .is_some_and(|(node, _)| silent.contains(node))
        };
        let lost = self.batches.iter().filter(|(_, batch)| is_lost(batch));
        let lost: Vec<(u32, u64)> = lost.map(|(key, _)| *key).collect();
        lost.into_iter().for_each(|key| self.end(key, End::Lost));
    }

    /// Ends a batch. Its open tasks are sent again, or fail.
    fn end(&mut self, key: (u32, u64), end: End) {
        let Some(mut batch) = self.batches.remove(&key) else {
            return;
        };
        let (node, begun) = batch.holder.unwrap_or_default();
        let is_charged = |at: usize| match end {
            End::Done => true,
            End::Released => false,
            End::Lost => begun.contains(&at),
        };
        let name = self.node(node).map(|at| self.report.nodes[at].name.clone());
        let fault = |losses| match (end, &batch.malformed) {
            (End::Done, malformed) => {
                Fault::Output(malformed.clone().unwrap_or("it was not sent".to_owned()))
            }
            _ => Fault::NodeLost {
                node: name.clone().unwrap_or_default(),
                losses,
            },
        };
        batch.losses.resize(batch.tasks.len(), 0);
        let open = || (0..batch.tasks.len()).filter(|at| batch.is_open[*at]);
        // Each node has several batches of suspects, so that none of them waits for the others.
        let suspects = open().filter(|at| is_charged(*at)).count();
        let most = (suspects / (3 * self.present_nodes()).max(1)).clamp(1, SUSPECTS);
        let mut parts: Vec<(bool, Range<usize>)> = Vec::new();
        for at in open() {
            let is_suspect = is_charged(at);
            let losses = &mut batch.losses[at];
            *losses += u32::from(is_suspect);
            if is_suspect && *losses >= self.node_losses.max(1) {
                let (job, index, fault) = (key.0, key.1 + at as u64, fault(*losses));
                self.actions.push(Action::Fail { job, index, fault });
                continue;
            }
            match parts.last_mut() {
                Some((alone, part))
                    if part.end == at && *alone == is_suspect && !(is_suspect && part.len() >= most) =>
                {
                    part.end += 1;
                }
                _ => parts.push((is_suspect, at..at + 1)),
            }
        }
        self.report.resent += parts.len() as u64;
        for (is_suspect, part) in parts {
            let first = key.1 + part.start as u64;
            let (losses, tasks) = (batch.losses[part.clone()].to_vec(), batch.tasks.part(part));
            self.add(key.0, first, tasks, losses, is_suspect || batch.alone);
        }
    }

    /// Forgets the open tasks of a job whose outputs are not wanted any more.
    pub(crate) fn abandon(&mut self, job: u32) {
        self.batches.retain(|(of, _), _| *of != job);
    }
}

impl Batch {
    /// Returns whether a task belongs to this batch, which begins at `first`.
    fn has(&self, first: u64, index: u64) -> bool {
        index >= first && index - first < self.tasks.len() as u64
    }

    fn is_unclaimed(&self, since: Instant) -> bool {
        self.holder.is_none() && self.sent.is_some_and(|sent| sent < since)
    }
}

#[cfg(test)]
#[path = "accounting/tests.rs"]
mod tests;
