//! [`Ready`]: outputs that wait until the caller takes them.

use std::collections::BTreeMap;
use std::vec;

use run_journal::Order;

use super::receiver::{Output, Run};

/// Outputs in their order, in runs of successive tasks: most outputs cost no more than a step of an iterator.
pub(super) struct Ready<R> {
    order: Order,
    /// The run whose outputs are returned now.
    current: Current<R>,
    /// The others: by the index of their first task, or as they came.
    runs: BTreeMap<u64, Run<R>>,
    /// The number of runs that have come.
    came: u64,
    /// The index of the next output in the order of the tasks.
    returned: u64,
    /// The number of outputs, and the bytes of runs that have some.
    len: usize,
    bytes: usize,
}

struct Current<R> {
    /// The index of the next output's task.
    next: u64,
    outputs: vec::IntoIter<Output<R>>,
    bytes: usize,
}

impl<R> Ready<R> {
    pub(super) fn new(order: Order) -> Self {
        let outputs = Vec::new().into_iter();
        let (next, bytes) = (0, 0);
        Self {
            order,
            current: Current { next, outputs, bytes },
            runs: BTreeMap::new(),
            came: 0,
            returned: 0,
            len: 0,
            bytes: 0,
        }
    }

    pub(super) fn add(&mut self, run: Run<R>) {
        self.len += run.outputs.len();
        self.bytes += run.bytes;
        let at = match self.order {
            Order::Ordered => run.first,
            Order::AsCompleted => self.came,
        };
        self.came += 1;
        self.runs.insert(at, run);
    }

    /// The number of outputs that were returned.
    pub(super) fn returned(&self) -> u64 {
        self.returned
    }

    /// The number of outputs that are here.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// About the bytes of their encodings.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether there is a next output.
    pub(super) fn has_next(&self) -> bool {
        self.current.outputs.len() > 0 || self.next_run().is_some()
    }

    /// Returns the next output, and the index of its task.
    pub(super) fn next(&mut self) -> Option<(u64, Output<R>)> {
        loop {
            if let Some(output) = self.current.outputs.next() {
                let task = self.current.next;
                self.current.next += 1;
                self.returned += 1;
                self.len -= 1;
                if self.current.outputs.len() == 0 {
                    self.bytes -= std::mem::take(&mut self.current.bytes);
                }
                return Some((task, output));
            }
            let at = self.next_run()?;
            let Run {
                first,
                outputs,
                bytes,
            } = self.runs.remove(&at)?;
            let outputs = outputs.into_iter();
            let next = first;
            self.current = Current { next, outputs, bytes };
        }
    }

    /// Returns where the next run is, if it is its turn.
    fn next_run(&self) -> Option<u64> {
        let (&at, _) = self.runs.first_key_value()?;
        (self.order == Order::AsCompleted || at == self.returned).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> impl Iterator<Item = Run<u64>> {
        [(4, 3), (0, 2), (2, 2), (8, 1), (7, 1)]
            .into_iter()
            .map(|(first, len)| Run {
                first,
                outputs: (first..first + len).map(|task| Ok(10 * task)).collect(),
                bytes: len as usize,
            })
    }

    fn take(ready: &mut Ready<u64>) -> Vec<u64> {
        let mut taken = Vec::new();
        while ready.has_next() {
            let (task, output) = ready.next().expect("there is one");
            assert_eq!(output.ok(), Some(10 * task));
            taken.push(task);
        }
        assert!(ready.next().is_none());
        taken
    }

    #[test]
    fn outputs_come_in_the_order_of_tasks_or_as_their_runs_came() {
        let mut ready = Ready::new(Order::Ordered);
        let mut taken: Vec<u64> = Vec::new();
        for (run, expected) in runs().zip([&[][..], &[0, 1], &[2, 3, 4, 5, 6], &[], &[7, 8]]) {
            ready.add(run);
            assert_eq!(take(&mut ready), expected);
            taken.extend(expected);
            assert_eq!(ready.returned(), taken.len() as u64);
        }
        let mut ready = Ready::new(Order::AsCompleted);
        runs().for_each(|run| ready.add(run));
        assert_eq!((ready.len(), ready.bytes()), (9, 9));
        assert_eq!(take(&mut ready), [4, 5, 6, 0, 1, 2, 3, 8, 7]);
        ready.add(Run::one(9, Ok(90), 5));
        assert_eq!(take(&mut ready), [9]);
        assert_eq!((ready.len(), ready.bytes()), (0, 0));
    }
}
