//! [`LogSink`]: the worker's end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use shm_buffers::ring::{Producer, PushError};
use shm_buffers::slots::Slots;

use super::{KINDS, STACK, WARNING, kind};
use crate::task;

/// How long a warning waits for room before it is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_micros(500);
/// The longest text of a line in an error of a task, in bytes.
const MAX_LINE: usize = 1 << 10;

/// Where a worker's handler of `logging` writes records.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct LogSink {
    ring: Arc<Mutex<Ring>>,
}

struct Ring {
    producer: Producer,
    slots: Slots,
    frame: Vec<u8>,
}

impl LogSink {
    pub(crate) fn new(producer: Producer, slots: Slots) -> Self {
        Self {
            ring: Arc::new(Mutex::new(Ring {
                producer,
                slots,
                frame: Vec::new(),
            })),
        }
    }

    /// Returns what writes the stacks of the threads, without the interpreter.
    pub(crate) fn stacks(&self) -> StackWriter {
        StackWriter(self.ring.clone())
    }
}

/// Writes the stacks of the threads to the leader.
pub(crate) struct StackWriter(Arc<Mutex<Ring>>);

impl StackWriter {
    pub(crate) fn write(&self, text: &[u8]) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Without room there is no stack.
        let _ = ring.producer.stage_parts(&[&[STACK], &0u32.to_le_bytes(), text]);
        // The leader drains rings by the clock: it needs no wakeup.
        let _ = ring.producer.publish();
    }
}

#[pymethods]
impl LogSink {
    /// Writes a record, or counts it as dropped. `line` is its text for errors of tasks.
    fn write(&self, py: Python<'_>, level: i64, line: &str, record: &Bound<'_, PyAny>) -> PyResult<()> {
        let kind = kind(level);
        let line = &line.as_bytes()[..line.floor_char_boundary_compat(MAX_LINE)];
        let mut encoded = Vec::new();
        task::encode(record, &mut encoded)?;
        let mut ring = self
            .ring
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        let emitted = ring.slots.slot(kind);
        emitted.add(1);
        let mut frame = std::mem::take(&mut ring.frame);
        frame.clear();
        frame.push(kind as u8);
        frame.extend_from_slice(&(line.len() as u32).to_le_bytes());
        frame.extend_from_slice(line);
        frame.extend_from_slice(&encoded);
        let mut written = ring.push(kind, &frame);
        if written == Err(NoRoom::Now) && kind >= WARNING {
            // During the pauses, other threads may use the interpreter and the ring.
            let end = Instant::now() + PATIENCE;
            while written == Err(NoRoom::Now) && Instant::now() < end {
                drop(ring);
                py.detach(|| std::thread::sleep(PAUSE));
                ring = self
                    .ring
                    .lock_py_attached(py)
                    .unwrap_or_else(PoisonError::into_inner);
                written = ring.push(kind, &frame);
            }
        }
        if written.is_err() {
            ring.slots.slot(KINDS + kind).add(1);
        }
        ring.frame = frame;
        Ok(())
    }
}

/// Why a record was not written.
#[derive(Clone, Copy, PartialEq)]
enum NoRoom {
    /// The ring is full.
    Now,
    /// It does not fit into any ring of this size, or the leader's end is broken.
    Ever,
}

impl Ring {
    fn push(&mut self, kind: usize, frame: &[u8]) -> Result<(), NoRoom> {
        let capacity = self.producer.capacity();
        if kind < WARNING {
            let used = self.producer.used().map_err(|_| NoRoom::Ever)?;
            if used + frame.len() > capacity / 4 * 3 {
                return Err(NoRoom::Now);
            }
        }
        match self.producer.stage(frame) {
            Ok(()) => {
                // The leader drains rings by the clock: it needs no wakeup.
                let _ = self.producer.publish();
                Ok(())
            }
            Err(PushError::Full) => Err(NoRoom::Now),
            Err(_) => Err(NoRoom::Ever),
        }
    }
}

/// `str::floor_char_boundary`; the oldest supported compiler does not have it.
trait FloorCharBoundary {
    fn floor_char_boundary_compat(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_compat(&self, at: usize) -> usize {
        let at = at.min(self.len());
        (0..=at).rev().find(|&at| self.is_char_boundary(at)).unwrap_or(0)
    }
}
