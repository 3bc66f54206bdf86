//! The output: standard error or the caller's writer, behind a queue so that a slow output does not block the job.

mod nonblocking;
mod queue;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "indicatif")]
pub(crate) use queue::FrameResult;
use queue::{OutputQueue, QueueHandle};

/// An output that the renderer and log writers share.
#[derive(Clone)]
pub(crate) struct Output(Kind);

#[derive(Clone)]
enum Kind {
    /// Written by a thread of its own, for which callers wait for a bounded time.
    Queue(Arc<QueueHandle>),
    /// Written by the caller.
    Direct(Arc<Mutex<Box<dyn Write + Send>>>),
}

impl Output {
    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self(Kind::Queue(Arc::new(OutputQueue::for_stderr())))
    }

    /// A writer that may block, fail and panic.
    pub(crate) fn queued(writer: Box<dyn Write + Send>) -> Self {
        Self(Kind::Queue(Arc::new(OutputQueue::for_writer(writer))))
    }

    /// A writer in memory, which does not block.
    pub(crate) fn direct(writer: Box<dyn Write + Send>) -> Self {
        Self(Kind::Direct(Arc::new(Mutex::new(writer))))
    }

    /// Writes all of `text`, which consists of whole lines. If the output does not take it in time, it is written
    /// later, in the order of the calls.
    ///
    /// # Errors
    /// The output's error, or `TimedOut` if the queue is full and the output has taken nothing for some time.
    pub(crate) fn write(&self, text: &[u8]) -> io::Result<()> {
        match &self.0 {
            _ if text.is_empty() => Ok(()),
            Kind::Queue(handle) => handle.queue().write(text),
            Kind::Direct(writer) => write_direct(writer, text),
        }
    }

    /// Writes as [`write`](Self::write) does, and ignores errors: a job must not fail because its progress cannot be
    /// shown.
    pub(crate) fn write_ignoring_errors(&self, text: &[u8]) {
        let _ = self.write(text);
    }

    /// Writes a frame, unless the output is still busy: then a later frame replaces it.
    #[cfg(feature = "indicatif")]
    pub(crate) fn write_frame(&self, frame: &[u8]) -> FrameResult {
        match &self.0 {
            _ if frame.is_empty() => FrameResult::Written,
            Kind::Queue(handle) => handle.queue().write_frame(frame),
            Kind::Direct(writer) => match write_direct(writer, frame) {
                Ok(()) => FrameResult::Written,
                Err(_) => FrameResult::Skipped,
            },
        }
    }

    /// Returns the number of lines that could not be written.
    pub(crate) fn lost_lines(&self) -> u64 {
        match &self.0 {
            Kind::Queue(handle) => handle.queue().lost_lines(),
            Kind::Direct(_) => 0,
        }
    }

    /// Calls `last`, during which no thread waits for the output, and then waits for a bounded time until everything is
    /// written.
    pub(crate) fn flush_after<T>(&self, last: impl FnOnce() -> T) -> T {
        match &self.0 {
            Kind::Queue(handle) => {
                let no_wait = handle.queue().disable_waits();
                let result = last();
                no_wait.flush();
                result
            }
            Kind::Direct(_) => last(),
        }
    }
}

fn write_direct(writer: &Mutex<Box<dyn Write + Send>>, bytes: &[u8]) -> io::Result<()> {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    writer.write_all(bytes)?;
    writer.flush()
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}
