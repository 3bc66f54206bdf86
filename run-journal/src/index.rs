//! [`Index`]: where the outputs of each run are in a journal.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::JournalError;
use crate::format::OutputsBlock;

/// The outputs of all runs, by the number of the run.
#[derive(Debug, Default)]
pub(crate) struct Index {
    runs: HashMap<u64, RunIndex>,
}

/// The outputs of one run.
#[derive(Debug, Default)]
pub(crate) struct RunIndex {
    /// The number of workers for which the tasks were cut into chunks.
    pub(crate) workers: u64,
    /// In the order of tasks, without overlap.
    pub(crate) groups: Vec<StoredGroup>,
    /// Later records of tasks in a group of several.
    again: HashMap<u64, StoredGroup>,
    /// Number of tasks with an output or a fault.
    tasks: u64,
}

/// Consecutive tasks that share a hash, in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    pub(crate) first: u64,
    pub(crate) hash: u64,
    /// The position in the file.
    pub(crate) at: u64,
    /// Number of bytes there.
    pub(crate) len: u64,
    pub(crate) tasks: u32,
    pub(crate) is_fault: bool,
}

impl StoredGroup {
    /// Returns the index of the task behind the last one.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.tasks)
    }
}

impl Index {
    /// Adds a block, whose payload is at this position of the file.
    pub(crate) fn add(&mut self, block: &OutputsBlock, position: u64) {
        let run = self.runs.entry(block.run).or_insert_with(|| RunIndex {
            workers: block.workers,
            ..RunIndex::default()
        });
        run.groups.extend(block.groups.iter().map(|group| StoredGroup {
            first: group.first,
            hash: group.hash,
            at: position + group.whole.start as u64,
            len: group.whole.len() as u64,
            tasks: group.tasks as u32,
            is_fault: group.is_fault,
        }));
    }

    /// Puts the groups in order. The last record of a task counts.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if groups overlap, which no program writes.
    pub(crate) fn finish(&mut self, path: &Path) -> Result<(), JournalError> {
        self.runs.values_mut().try_for_each(|run| run.finish(path))
    }

    /// Removes a run from the index.
    pub(crate) fn take(&mut self, run: u64) -> Arc<RunIndex> {
        Arc::new(self.runs.remove(&run).unwrap_or_default())
    }

    /// Returns the number of workers of a run, if it has outputs.
    pub(crate) fn workers(&self, run: u64) -> Option<u64> {
        self.runs.get(&run).map(|run| run.workers)
    }

    /// Returns the runs, in order of their numbers.
    pub(crate) fn runs(&self) -> Vec<(u64, &RunIndex)> {
        let mut runs: Vec<_> = self.runs.iter().map(|(number, run)| (*number, run)).collect();
        runs.sort_by_key(|(number, _)| *number);
        runs
    }
}

impl RunIndex {
    fn finish(&mut self, path: &Path) -> Result<(), JournalError> {
        // Those of several tasks first; records of one task in the order in which they were written.
        let mut all = std::mem::take(&mut self.groups);
        all.sort_by_key(|group| (group.first, group.tasks == 1, group.at));
        for group in all {
            match self.groups.last_mut() {
                Some(last) if group.first < last.end() => {
                    if group.tasks > 1 {
                        let (path, offset) = (path.to_owned(), group.at);
                        return Err(JournalError::Damaged { path, offset });
                    }
                    if last.tasks > 1 {
                        self.again.insert(group.first, group);
                    } else {
                        *last = group;
                    }
                }
                _ => self.groups.push(group),
            }
        }
        self.groups.shrink_to_fit();
        self.tasks = self.groups.iter().map(|group| u64::from(group.tasks)).sum();
        Ok(())
    }

    /// Returns the record of a task in a group, and the position of the task in it.
    pub(crate) fn record(&self, group: &StoredGroup, task: u64) -> (StoredGroup, usize) {
        match self.again.get(&task) {
            Some(again) if group.tasks > 1 => (*again, 0),
            _ => (*group, (task - group.first) as usize),
        }
    }

    /// Returns the number of tasks with an output or a fault.
    pub(crate) fn tasks(&self) -> u64 {
        self.tasks
    }

    /// Returns the number of tasks whose record is a fault.
    pub(crate) fn faults(&self) -> u64 {
        let alone = self.groups.iter().filter(|group| group.is_fault);
        let again = self.again.values().filter(|group| group.is_fault);
        (alone.count() + again.count()) as u64
    }

    /// Returns the last task with an output or a fault.
    pub(crate) fn last(&self) -> Option<u64> {
        self.groups.last().map(|group| group.end() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Group;

    fn index(groups: &[(u64, usize)]) -> Result<Index, JournalError> {
        let mut index = Index::default();
        for (number, (first, tasks)) in groups.iter().enumerate() {
            let block = OutputsBlock {
                synced: 0,
                run: 3,
                workers: 2,
                groups: vec![Group {
                    first: *first,
                    tasks: *tasks,
                    hash: number as u64,
                    is_fault: number == 1,
                    lengths: vec![0],
                    whole: 0..1,
                    bytes: 1..1,
                }],
                rest: 0,
            };
            index.add(&block, 100 * (number as u64 + 1));
        }
        index.finish(Path::new("j"))?;
        Ok(index)
    }

    #[test]
    fn the_last_record_of_a_task_counts() {
        let mut index = index(&[(8, 2), (5, 1), (0, 4), (5, 1), (2, 1), (2, 1)]).expect("no overlap");
        let run = index.take(3);
        let groups: Vec<_> = run
            .groups
            .iter()
            .map(|it| (it.first, it.tasks, it.hash))
            .collect();
        assert_eq!(groups, [(0, 4, 2), (5, 1, 3), (8, 2, 0)]);
        let record = |group: usize, task| {
            let (record, position) = run.record(&run.groups[group], task);
            (record.hash, position)
        };
        assert_eq!(
            [record(0, 1), record(0, 2), record(1, 5), record(2, 9)],
            [(2, 1), (5, 0), (3, 0), (0, 1)]
        );
        assert_eq!((run.tasks(), run.faults(), run.last()), (7, 0, Some(9)));
        assert_eq!(index.take(3).last(), None, "each run is taken once");
    }

    #[test]
    fn overlapping_groups_are_damage() {
        for groups in [&[(0, 4), (3, 2)][..], &[(3, 4), (0, 4)], &[(3, 4), (3, 4)]] {
            assert!(
                matches!(index(groups), Err(JournalError::Damaged { .. })),
                "{groups:?}"
            );
        }
        index(&[(0, 4), (4, 2), (3, 1), (5, 1), (6, 1)]).expect("no groups of several overlap");
    }
}
