//! [`JournalInput`]: the tasks of a run with a journal, of which those without a stored output run.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proc_pool::BoxError;

use crate::OpenJournal;
use crate::error::JournalError;
use crate::format::Kind;
use crate::hash::{hash_of_tasks, task_hash};
use crate::index::{RunIndex, StoredGroup};
use crate::options::JournalFaults;
use crate::recorder::{Recorder, SentTask};
use crate::replay::OutputReader;

/// An input that the workers and the iterator over the outputs share. Both take tasks in the caller's thread.
#[derive(Debug)]
pub struct SharedInput<I: Iterator>(Arc<Mutex<JournalInput<I>>>);

impl<I: Iterator> Clone for SharedInput<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: Iterator> SharedInput<I> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, JournalInput<I>> {
        // A panic of the caller's iterator leaves it as it is without a journal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next task for the workers, with its index.
    pub fn next_for_workers(&self) -> Option<(u64, I::Item)> {
        self.lock().next_for_workers()
    }

    /// Returns the bounds of the number of tasks that workers may get.
    pub fn size_hint(&self) -> (usize, Option<usize>) {
        let input = self.lock();
        let most = input.input.size_hint().1;
        (0, most.and_then(|most| most.checked_add(input.fresh.len())))
    }
}

/// How tasks are encoded, and which stored outputs do not count.
#[derive(Debug, Clone, Copy)]
pub struct TaskRules<T> {
    /// Appends the encoding of a task, of which the journal has a hash.
    pub encode: fn(&T, &mut Vec<u8>) -> Result<(), BoxError>,
    /// Whether a task with this encoded output runs again; none of them by default.
    pub runs_again: Option<fn(&[u8]) -> bool>,
}

/// A stored output that can be returned.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) task: u64,
    pub(crate) group: StoredGroup,
    /// Its position in the group.
    pub(crate) position: usize,
}

/// A task for the workers.
struct Fresh<T> {
    task: T,
    sent: SentTask,
}

/// The tasks of a run, and what the journal has of them.
pub struct JournalInput<I: Iterator> {
    input: I,
    rules: TaskRules<I::Item>,
    faults: JournalFaults,
    path: PathBuf,
    index: Arc<RunIndex>,
    recorder: Arc<Recorder>,
    reader: OutputReader<Arc<File>>,
    /// Number of groups of the index that were passed.
    groups: usize,
    /// Number of tasks taken from the input.
    taken: u64,
    ended: bool,
    failure: Option<JournalError>,
    ready: VecDeque<Ready>,
    fresh: VecDeque<Fresh<I::Item>>,
    /// An encoded task.
    encoded: Vec<u8>,
}

impl<I: Iterator> std::fmt::Debug for JournalInput<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalInput")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl<I: Iterator> JournalInput<I> {
    /// Starts a run of these tasks, which are cut into chunks for this number of workers.
    pub fn start(
        journal: &Arc<OpenJournal>,
        workers: usize,
        input: I,
        rules: TaskRules<I::Item>,
    ) -> (SharedInput<I>, Arc<Recorder>) {
        let (recorder, index) = Recorder::start(journal, workers);
        let input = Self {
            input,
            rules,
            faults: journal.faults,
            path: journal.path.clone(),
            index,
            reader: OutputReader::new(journal.file.clone()),
            recorder: recorder.clone(),
            groups: 0,
            taken: 0,
            ended: false,
            failure: None,
            ready: VecDeque::new(),
            fresh: VecDeque::new(),
            encoded: Vec::new(),
        };
        (SharedInput(Arc::new(Mutex::new(input))), recorder)
    }

    /// Returns the number of tasks taken from the input.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns whether all that is left comes from the workers.
    pub(crate) fn is_read(&self) -> bool {
        self.groups >= self.index.groups.len() && self.ready.is_empty() && self.fresh.is_empty()
    }

    pub(crate) fn take_failure(&mut self) -> Option<JournalError> {
        self.failure.take()
    }

    pub(crate) fn reader(&mut self) -> &mut OutputReader<Arc<File>> {
        &mut self.reader
    }

    /// Removes the next stored output; of a run in order, only that of task `wanted`.
    pub(crate) fn take_ready(&mut self, wanted: Option<u64>) -> Option<Ready> {
        let front = self.ready.front()?;
        match wanted.is_none_or(|wanted| front.task == wanted) {
            true => self.ready.pop_front(),
            false => None,
        }
    }

    fn next_for_workers(&mut self) -> Option<(u64, I::Item)> {
        loop {
            if let Some(Fresh { task, sent }) = self.fresh.pop_front() {
                self.recorder.add(sent);
                return Some((sent.task, task));
            }
            if !self.pull() {
                return None;
            }
        }
    }

    /// Takes the next task from the input, or those of a group. Returns whether there were any.
    pub(crate) fn pull(&mut self) -> bool {
        if self.ended || self.failure.is_some() {
            return false;
        }
        let group = self.index.groups.get(self.groups).copied();
        let pulled = match group {
            Some(group) if group.first == self.taken => self.pull_group(&group),
            _ => self.pull_one(),
        };
        match pulled {
            Ok(more) => more,
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }

    /// Takes one task and encodes it. Returns it with its hash.
    fn take(&mut self) -> Result<Option<(I::Item, u64)>, JournalError> {
        let Some(task) = self.input.next() else {
            self.ended = true;
            return match self.index.last() {
                Some(stored) if stored >= self.taken => Err(JournalError::InputEnds {
                    path: self.path.clone(),
                    tasks: self.taken,
                    stored,
                }),
                _ => Ok(None),
            };
        };
        self.encoded.clear();
        let encoded = (self.rules.encode)(&task, &mut self.encoded);
        encoded.map_err(|reason| JournalError::Codec {
            step: "encode task",
            path: self.path.clone(),
            task: self.taken,
            reason: reason.to_string(),
        })?;
        self.taken += 1;
        Ok(Some((task, task_hash(&self.encoded))))
    }

    fn pull_one(&mut self) -> Result<bool, JournalError> {
        let index = self.taken;
        let Some((task, hash)) = self.take()? else {
            return Ok(false);
        };
        let sent = SentTask {
            task: index,
            hash,
            kind: Kind::Output,
        };
        self.fresh.push_back(Fresh { task, sent });
        Ok(true)
    }

    /// Takes the tasks of a group and compares their hash. Those whose records do not count become fresh.
    fn pull_group(&mut self, group: &StoredGroup) -> Result<bool, JournalError> {
        let mut tasks = Vec::with_capacity(group.tasks as usize);
        let mut hashes = Vec::with_capacity(group.tasks as usize);
        for _ in 0..group.tasks {
            let Some((task, hash)) = self.take()? else {
                return Ok(false);
            };
            tasks.push(task);
            hashes.push(hash);
        }
        self.groups += 1;
        let found = hash_of_tasks(&hashes);
        if found != group.hash {
            return Err(JournalError::TaskDiffers {
                path: self.path.clone(),
                first: group.first,
                last: group.end() - 1,
                stored: group.hash,
                found,
            });
        }
        for ((index, task), hash) in (group.first..).zip(tasks).zip(hashes) {
            let (record, position) = self.index.record(group, index);
            if self.counts(&record, position)? {
                self.ready.push_back(Ready {
                    task: index,
                    group: record,
                    position,
                });
            } else {
                let kind = Kind::Again;
                let sent = SentTask {
                    task: index,
                    hash,
                    kind,
                };
                self.fresh.push_back(Fresh { task, sent });
            }
        }
        Ok(true)
    }

    /// Returns whether a record is returned, instead of running its task again.
    fn counts(&mut self, record: &StoredGroup, position: usize) -> Result<bool, JournalError> {
        if record.is_fault {
            return Ok(self.faults == JournalFaults::Keep);
        }
        let Some(runs_again) = self.rules.runs_again else {
            return Ok(true);
        };
        let read = self.reader.read(record, position);
        let bytes = read.map_err(JournalError::os("read", &self.path))?;
        Ok(!runs_again(bytes))
    }
}
