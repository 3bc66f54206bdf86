//! [`Replayed`]: the outputs of a run with a journal, from the file or from the workers.

use std::fs::File;
use std::sync::Arc;

use proc_pool::{BoxError, Fault, Interrupter, TaskError, TryNext};

use crate::error::JournalError;
use crate::format::Group;
use crate::index::StoredGroup;
use crate::input::{Ready, SharedInput};
use crate::order::Order;
use crate::recorder::Recorder;
use crate::scan::ReadAt;

/// Reads outputs from a journal.
#[derive(Debug)]
pub(crate) struct OutputReader<F> {
    file: F,
    /// Bytes of the file, and their position.
    window: Vec<u8>,
    position: u64,
    /// The group that was read last.
    group: Option<(u64, Group)>,
}

impl<F: ReadAt> OutputReader<F> {
    pub(crate) fn new(file: F) -> Self {
        Self {
            file,
            window: Vec::new(),
            position: 0,
            group: None,
        }
    }

    /// Returns the encoded output, or the text of the fault, at a position of a group.
    pub(crate) fn read(&mut self, stored: &StoredGroup, position: usize) -> Result<&[u8], std::io::Error> {
        /// Bytes of one read: the next outputs follow in the file.
        const AHEAD: u64 = 128 << 10;
        let is_there =
            stored.at >= self.position && stored.at + stored.len <= self.position + self.window.len() as u64;
        if !is_there {
            let rest = self.file.byte_len()?.saturating_sub(stored.at);
            let len = stored.len.max(AHEAD).min(rest).max(stored.len);
            self.window.clear();
            self.window.resize(len as usize, 0);
            self.group = None;
            self.file.read_at(&mut self.window, stored.at)?;
            self.position = stored.at;
        }
        let start = (stored.at - self.position) as usize;
        let whole = &self.window[start..start + stored.len as usize];
        let changed = || std::io::Error::other("it has changed since it was opened");
        if self.group.as_ref().is_none_or(|(at, _)| *at != stored.at) {
            let group = Group::parse(whole).map_err(|_| changed())?;
            self.group = Some((stored.at, group));
        }
        let (_, group) = self.group.as_ref().ok_or_else(changed)?;
        if position >= group.tasks {
            return Err(changed());
        }
        let range = group.range(position);
        whole[group.bytes.clone()].get(range).ok_or_else(changed)
    }
}

/// Merges the outputs of the journal with those of the workers.
pub struct Replayed<R, I: Iterator> {
    input: SharedInput<I>,
    recorder: Arc<Recorder>,
    interrupter: Interrupter,
    decode: fn(&[u8]) -> Result<R, BoxError>,
    order: Order,
    /// Number of outputs returned.
    returned: u64,
    /// Whether the workers have returned their last output.
    map_ended: bool,
    /// Whether the journal has no more outputs of this run, so that all come from the workers.
    is_read: bool,
    /// Whether an error of the journal was returned.
    has_failed: bool,
}

impl<R, I: Iterator> Replayed<R, I> {
    /// Makes the outputs of a run. `decode` decodes those of the file.
    pub fn new(
        input: SharedInput<I>,
        recorder: Arc<Recorder>,
        interrupter: Interrupter,
        decode: fn(&[u8]) -> Result<R, BoxError>,
        order: Order,
    ) -> Self {
        Self {
            input,
            recorder,
            interrupter,
            decode,
            order,
            returned: 0,
            map_ended: false,
            is_read: false,
            has_failed: false,
        }
    }

    fn fail(&mut self, error: JournalError) -> TaskError {
        self.has_failed = true;
        TaskError {
            task: self.returned,
            fault: Fault::Other(error.into()),
        }
    }

    /// Returns whether the run has ended because of the journal: the error that was returned last is not that of a task.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns the next output, and whether it was read from the journal. `from_workers` returns the next one of the workers, with the
    /// number of its task there. [`TryNext::Pending`] is returned as it comes.
    #[inline]
    pub fn try_next(&mut self, mut from_workers: impl FnMut() -> (u64, TryNext<R>)) -> (TryNext<R>, bool) {
        loop {
            if self.has_failed {
                return (TryNext::End, false);
            }
            if let Some(error) = self.recorder.failure() {
                return (TryNext::Output(Err(self.fail(error))), false);
            }
            if !self.is_read {
                let mut input = self.input.lock();
                let next = match self.order {
                    Order::Ordered => Some(self.returned),
                    Order::AsCompleted => None,
                };
                if let Some(ready) = input.take_ready(next) {
                    let output = self.stored(&ready, input.reader());
                    drop(input);
                    self.returned += 1;
                    self.recorder.count_read();
                    return (TryNext::Output(output), true);
                }
                let is_waiting = input.taken() > self.returned;
                if !is_waiting && !self.map_ended && self.interrupter.interrupted().is_none() && input.pull()
                {
                    continue;
                }
                self.is_read = input.is_read();
            }
            if self.map_ended {
                let failure = self.input.lock().take_failure();
                let failure = failure.map(|error| TryNext::Output(Err(self.fail(error))));
                return (failure.unwrap_or(TryNext::End), false);
            }
            let (number, output) = match from_workers() {
                (number, TryNext::Output(output)) => (number, output),
                (_, TryNext::Pending) => return (TryNext::Pending, false),
                (_, TryNext::End) => {
                    self.map_ended = true;
                    continue;
                }
            };
            self.returned += 1;
            let fault = output.as_ref().err().map(|error| &error.fault);
            let task = self.recorder.finish(number, fault);
            let output = output.map_err(|error| TaskError {
                task: task.unwrap_or(error.task),
                fault: error.fault,
            });
            return (TryNext::Output(output), false);
        }
    }

    /// Reads an output from the journal.
    fn stored(&self, ready: &Ready, reader: &mut OutputReader<Arc<File>>) -> Result<R, TaskError> {
        let path = self.recorder.journal().path();
        let error = |error: JournalError| TaskError {
            task: ready.task,
            fault: Fault::Other(error.into()),
        };
        let bytes = reader
            .read(&ready.group, ready.position)
            .map_err(|source| error(JournalError::os("read", path)(source)))?;
        if ready.group.is_fault {
            let text = String::from_utf8_lossy(bytes).into_owned();
            return Err(error(JournalError::Kept(text)));
        }
        (self.decode)(bytes).map_err(|reason| {
            error(JournalError::Codec {
                step: "decode the output of task",
                path: path.to_owned(),
                task: ready.task,
                reason: reason.to_string(),
            })
        })
    }
}
