//! [`Accounting`]: which tasks are open, which node has them, and what a lost node costs. A pure state machine: it has no clock, and
//! makes no calls.
//!
//! Tasks lie in *ranges*, as they were taken from the input of a job. A range is sent in *batches*: at first all of it in one; after
//! the loss of a node, the tasks that it had started in some that must run alone, one task after the other, and the others in another
//! one. The first valid answer to a task wins.

mod parts;

use std::collections::{BTreeMap, HashMap};
use std::ops;
use std::time::{Duration, Instant};

use log_bridge::relay::Received;

pub(crate) use parts::{Action, Counts, Finished, Node};

use crate::batcher::{Draft, DraftTask};
use crate::report::NodeEnd;
use crate::wire::{Grant, Join, NodeCounts, Tasks};
use parts::{Batch, Holder, Positions, Range};

/// The most tasks of a batch that must run alone.
const SUSPECTS: usize = 64;

pub(crate) struct Accounting {
    node_losses: u32,
    ack_wait: Duration,
    ranges: BTreeMap<(u32, u64), Range>,
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    /// The number of tasks of each job so far.
    taken: HashMap<u32, u64>,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) counts: Counts,
    /// The number of outputs that were delivered.
    pub(crate) delivered: u64,
    last_tick: Option<Instant>,
}

impl Accounting {
    /// `first_batch` must be higher than the number of any batch of an earlier leader of the run.
    pub(crate) fn new(node_losses: u32, ack_wait: Duration, first_batch: u64) -> Self {
        Self {
            node_losses,
            ack_wait,
            ranges: BTreeMap::new(),
            batches: BTreeMap::new(),
            next_batch: first_batch,
            taken: HashMap::new(),
            nodes: BTreeMap::new(),
            counts: Counts::default(),
            delivered: 0,
            last_tick: None,
        }
    }

    /// The number of ranges with open tasks.
    pub(crate) fn open_ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Returns whether a job has open tasks.
    pub(crate) fn is_open(&self, job: u32) -> bool {
        self.ranges.range((job, 0)..=(job, u64::MAX)).next().is_some()
    }

    pub(crate) fn present_nodes(&self) -> usize {
        let present = self.nodes.values().filter(|node| node.state == NodeEnd::Present);
        present.count()
    }

    /// Opens the next tasks of a job. Returns the batch to send.
    pub(crate) fn open(&mut self, job: u32, draft: Draft) -> u64 {
        let first = self.taken.entry(job).or_default();
        let range = *first;
        let open = draft.tasks.len();
        *first += open as u64;
        let new = Range {
            tasks: draft.tasks,
            encoded: draft.encoded,
            open,
            batches: Vec::new(),
        };
        self.ranges.insert((job, range), new);
        self.add_batch(job, range, Positions::All, false)
    }

    /// The number of tasks of a job so far: the index of its next one.
    pub(crate) fn taken(&self, job: u32) -> u64 {
        self.taken.get(&job).copied().unwrap_or(0)
    }

    /// Counts a task of a job that needs no answer, because an earlier leader has one.
    pub(crate) fn skip(&mut self, job: u32) {
        *self.taken.entry(job).or_default() += 1;
    }

    fn add_batch(&mut self, job: u32, range: u64, positions: Positions, alone: bool) -> u64 {
        let batch = self.next_batch;
        self.next_batch += 1;
        if let Some(range) = self.ranges.get_mut(&(job, range)) {
            range.batches.push(batch);
        }
        let new = Batch {
            job,
            range,
            positions,
            alone,
            holder: None,
            sent: None,
        };
        self.batches.insert(batch, new);
        batch
    }

    /// Returns the job of a batch, and whether it runs alone; `None` if no task of it is open.
    pub(crate) fn kind(&self, batch: u64) -> Option<(u32, bool)> {
        let it = self.batches.get(&batch)?;
        Some((it.job, it.alone))
    }

    /// Calls `encode` with the tasks of a batch.
    pub(crate) fn contents<B>(&self, batch: u64, encode: impl FnOnce(&Tasks<'_>) -> B) -> Option<B> {
        let it = self.batches.get(&batch)?;
        let range = self.ranges.get(&(it.job, it.range))?;
        let tasks = it
            .all_positions(range)
            .map(|at| (it.range + at as u64, range.bytes_of(at).len()));
        Some(match &it.positions {
            Positions::All => encode(&Tasks::new(tasks, &range.encoded)),
            Positions::Some(positions) => {
                let encoded: Vec<&[u8]> = positions.iter().map(|at| range.task(*at as usize)).collect();
                encode(&Tasks::new(tasks, &encoded.concat()))
            }
        })
    }

    pub(crate) fn sent(&mut self, batch: u64, now: Instant) {
        if let Some(batch) = self.batches.get_mut(&batch) {
            batch.sent = Some(now);
        }
    }

    /// Batches that lie in the stream of tasks since before `since`, as far as this knows.
    pub(crate) fn unclaimed(&self, since: Instant) -> Vec<u64> {
        let old = |batch: &Batch| batch.holder.is_none() && batch.sent.is_some_and(|sent| sent < since);
        let unclaimed = self.batches.iter().filter(|(_, batch)| old(batch));
        unclaimed.map(|(id, _)| *id).collect()
    }

    /// Marks batches as not sent, because the stream has lost them.
    pub(crate) fn resend(&mut self, batches: &[u64]) {
        for batch in batches {
            if let Some(batch) = self.batches.get_mut(batch) {
                batch.sent = None;
                self.counts.resent += 1;
            }
        }
    }

    pub(crate) fn join(&mut self, join: Join, now: Instant) {
        let number = self.nodes.len();
        let node = self.nodes.entry(join.node).or_insert_with(|| Node {
            number,
            join: join.clone(),
            counts: NodeCounts::default(),
            logs: Received::default(),
            state: NodeEnd::Present,
            delivered: 0,
            seen: now,
        });
        (node.state, node.seen) = (NodeEnd::Present, now);
    }

    /// A node is about to run tasks of a batch, at these positions. If it may, returns which tasks of the batch are open.
    pub(crate) fn begin(
        &mut self,
        node: u64,
        batch: u64,
        tasks: ops::Range<usize>,
        now: Instant,
    ) -> (Grant, Vec<Action>) {
        let Some(it) = self.batches.get_mut(&batch) else {
            return (Grant::Drop, Vec::new());
        };
        match &mut it.holder {
            Some(holder) if holder.node == node => {
                let ops::Range { start, end } = &mut holder.begun;
                (*start, *end) = (tasks.start.max(*start), tasks.end.max(*end));
                holder.seen = now;
            }
            // The stream delivers a batch again when its node was silent for `ack_wait`.
            Some(holder) if now.saturating_duration_since(holder.seen) >= self.ack_wait => {
                return (Grant::Drop, self.lose(batch));
            }
            Some(_) => return (Grant::Drop, Vec::new()),
            None => {
                it.holder = Some(Holder {
                    node,
                    begun: tasks,
                    seen: now,
                    finished: None,
                });
            }
        }
        let it = &self.batches[&batch];
        let Some(range) = self.ranges.get(&(it.job, it.range)) else {
            return (Grant::Drop, Vec::new());
        };
        let tasks = it.all_positions(range).zip(0..);
        let open: Vec<u32> = tasks
            .filter(|(task, _)| range.tasks[*task].open)
            .map(|(_, at)| at)
            .collect();
        let grant = match open.len() == it.len(range) {
            true => Grant::All,
            false => Grant::Only(open),
        };
        (grant, Vec::new())
    }

    /// Counts the answers of a node, with the indices and hashes of their tasks. Closes the tasks of those that are the first, and calls
    /// `first` with the position of each of these answers.
    pub(crate) fn answer(
        &mut self,
        node: u64,
        job: u32,
        answers: impl Iterator<Item = (u64, u64)>,
        mut first: impl FnMut(usize),
    ) {
        let taken = self.taken(job);
        let delivered = self.delivered;
        let mut answers = (0..).zip(answers).peekable();
        while let Some(&(_, (index, _))) = answers.peek() {
            let mut before = self.ranges.range_mut((job, 0)..=(job, index));
            let found = before.next_back();
            let Some((&key, range)) = found.filter(|(key, range)| range.has(key.1, index)) else {
                match index < taken {
                    true => self.counts.duplicates += 1,
                    false => self.counts.invalid += 1,
                }
                answers.next();
                continue;
            };
            // As a rule, all of them are in one range.
            while let Some((at, (index, hash))) = answers.next_if(|(_, (index, _))| range.has(key.1, *index))
            {
                let slot = &mut range.tasks[(index - key.1) as usize];
                match slot.hash == hash {
                    true if slot.open => {
                        slot.open = false;
                        range.open -= 1;
                        self.delivered += 1;
                        first(at);
                    }
                    true => self.counts.duplicates += 1,
                    false => self.counts.invalid += 1,
                }
            }
            self.drop_if_closed(key);
        }
        if let Some(node) = self.nodes.get_mut(&node) {
            node.delivered += self.delivered - delivered;
        }
    }

    /// Counts an answer to an open task whose output could not be decoded. The task runs once more, and then returns `true`: it has
    /// no output.
    pub(crate) fn undecodable(&mut self, job: u32, index: u64, hash: u64) -> (bool, Vec<Action>) {
        self.counts.invalid += 1;
        let found = self.find(job, index).filter(|(_, slot)| slot.hash == hash);
        let Some(((_, range), slot)) = found else {
            return (false, Vec::new());
        };
        // A loss, so that the two together are bounded.
        slot.losses += 1;
        match slot.losses > 1 {
            true => {
                self.close(job, index);
                (true, Vec::new())
            }
            false => {
                let positions = Positions::Some(vec![(index - range) as u32]);
                let batch = self.add_batch(job, range, positions, false);
                self.counts.resent += 1;
                (false, vec![Action::Send(batch)])
            }
        }
    }

    /// Finds an open task: the key of its range, and the position in it.
    fn find(&mut self, job: u32, index: u64) -> Option<((u32, u64), &mut DraftTask)> {
        let (key, range) = self.ranges.range_mut((job, 0)..=(job, index)).next_back()?;
        let slot = range.tasks.get_mut((index - key.1) as usize)?;
        slot.open.then_some((*key, slot))
    }

    fn close(&mut self, job: u32, index: u64) {
        if let Some((key, slot)) = self.find(job, index) {
            slot.open = false;
            if let Some(range) = self.ranges.get_mut(&key) {
                range.open -= 1;
            }
            self.drop_if_closed(key);
        }
    }

    /// Forgets a range if no task of it is open.
    fn drop_if_closed(&mut self, key: (u32, u64)) {
        if self.ranges.get(&key).is_some_and(|range| range.open == 0)
            && let Some(range) = self.ranges.remove(&key)
        {
            for batch in range.batches {
                self.batches.remove(&batch);
            }
        }
    }

    /// A node has done what it will with a batch.
    pub(crate) fn finished(&mut self, node: u64, batch: u64, finished: Finished) {
        if let Some(holder) = self
            .batches
            .get_mut(&batch)
            .and_then(|batch| batch.holder.as_mut())
            && holder.node == node
        {
            holder.finished = Some(finished);
        }
    }

    pub(crate) fn beat(&mut self, node: u64, held: &[u64], counts: NodeCounts, now: Instant) -> bool {
        let Some(it) = self.nodes.get_mut(&node) else {
            return false;
        };
        (it.counts, it.seen) = (counts, now);
        if it.state == NodeEnd::Lost {
            it.state = NodeEnd::Present;
        }
        for batch in held {
            if let Some(holder) = self
                .batches
                .get_mut(batch)
                .and_then(|batch| batch.holder.as_mut())
                && holder.node == node
            {
                holder.seen = now;
            }
        }
        true
    }

    pub(crate) fn leave(&mut self, node: u64, counts: NodeCounts) {
        if let Some(node) = self.nodes.get_mut(&node) {
            (node.counts, node.state) = (counts, NodeEnd::Left);
        }
    }

    /// Looks for lost batches. The stream of answers was read up to `read`. Time in which this was not called does not count: the leader
    /// was stopped, or had no connection, and has not heard its nodes.
    pub(crate) fn tick(&mut self, now: Instant, read: u64) -> Vec<Action> {
        let gap = self
            .last_tick
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_tick = Some(now);
        if gap > self.ack_wait / 4 {
            for holder in self
                .batches
                .values_mut()
                .filter_map(|batch| batch.holder.as_mut())
            {
                holder.seen += gap;
            }
            for node in self.nodes.values_mut() {
                node.seen += gap;
            }
        }
        for node in self.nodes.values_mut() {
            let silent = now.saturating_duration_since(node.seen) > self.ack_wait;
            if silent && node.state == NodeEnd::Present {
                node.state = NodeEnd::Lost;
                self.counts.nodes_lost += 1;
            }
        }
        let ended: Vec<u64> = self
            .batches
            .iter()
            .filter_map(|(id, batch)| {
                let holder = batch.holder.as_ref()?;
                let is_over = match &holder.finished {
                    Some(finished) => finished.sequence <= read,
                    None => now.saturating_duration_since(holder.seen) > self.ack_wait,
                };
                is_over.then_some(*id)
            })
            .collect();
        ended.into_iter().flat_map(|batch| self.lose(batch)).collect()
    }

    /// Ends a batch whose node is lost, or has done what it will. Its open tasks are sent again, or fail.
    fn lose(&mut self, batch: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(it) = self.batches.remove(&batch) else {
            return actions;
        };
        let (Some(holder), Some(range)) = (it.holder.as_ref(), self.ranges.get_mut(&(it.job, it.range)))
        else {
            return actions;
        };
        range.batches.retain(|other| *other != batch);
        let released = holder.finished.as_ref().is_some_and(|finished| finished.released);
        let name = self
            .nodes
            .get(&holder.node)
            .map_or_else(String::new, |node| node.join.name.clone());
        let (mut suspects, mut failed, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (at, position) in it
            .all_positions(range)
            .collect::<Vec<_>>()
            .into_iter()
            .enumerate()
        {
            let slot = &mut range.tasks[position];
            match slot.open {
                false => {}
                true if released || !holder.begun.contains(&at) => rest.push(position as u32),
                true => {
                    slot.losses += 1;
                    match slot.losses >= self.node_losses.max(1) {
                        true => failed.push((it.range + position as u64, slot.losses)),
                        false => suspects.push(position as u32),
                    }
                }
            }
        }
        for (index, losses) in failed {
            self.close(it.job, index);
            actions.push(Action::Fail {
                job: it.job,
                index,
                node: name.clone(),
                losses,
            });
        }
        // Each node has several batches, so that none of them waits for the others.
        let share = suspects.len() / (3 * self.present_nodes()).max(1);
        for positions in suspects.chunks(share.clamp(1, SUSPECTS)) {
            let positions = Positions::Some(positions.to_vec());
            actions.push(Action::Send(self.add_batch(it.job, it.range, positions, true)));
        }
        if !rest.is_empty() {
            let positions = Positions::Some(rest);
            actions.push(Action::Send(
                self.add_batch(it.job, it.range, positions, it.alone),
            ));
        }
        let resent = actions.iter().filter(|action| matches!(action, Action::Send(_)));
        self.counts.resent += resent.count() as u64;
        actions
    }

    /// Forgets the open tasks of a job whose outputs are not wanted any more.
    pub(crate) fn abandon(&mut self, job: u32) {
        self.ranges.retain(|(of, _), _| *of != job);
        self.batches.retain(|_, batch| batch.job != job);
    }
}

#[cfg(test)]
#[path = "accounting/tests.rs"]
mod tests;
