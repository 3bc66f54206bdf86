//! Where everything is drawn: standard error, or the writer that the program gave.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::pen::{Handle, Pen};

/// A destination that the renderer, the log writers and the terminal share.
#[derive(Clone)]
pub(crate) struct Output(Way);

#[derive(Clone)]
enum Way {
    /// Written by a thread of its own, for which others wait with bounded patience.
    Pen(Arc<Handle>),
    /// Written by the caller: for memory.
    Direct(Arc<Mutex<Box<dyn Write + Send>>>),
}

/// What became of a drawing.
#[cfg(feature = "indicatif")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drawn {
    Yes,
    /// Not a byte of it was or will be written.
    No,
}

impl Output {
    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self(Way::Pen(Arc::new(Pen::stderr())))
    }

    /// A writer that may block, fail and panic.
    pub(crate) fn given(write: Box<dyn Write + Send>) -> Self {
        Self(Way::Pen(Arc::new(Pen::given(write))))
    }

    /// A writer that does not.
    pub(crate) fn direct(write: Box<dyn Write + Send>) -> Self {
        Self(Way::Direct(Arc::new(Mutex::new(write))))
    }

    /// Writes all of `text`, which consists of whole lines. Where the destination does not take it in time, it is written
    /// later, in this order.
    ///
    /// # Errors
    /// The destination's error, or `TimedOut` if it has taken nothing for long.
    pub(crate) fn write(&self, text: &[u8]) -> io::Result<()> {
        match &self.0 {
            _ if text.is_empty() => Ok(()),
            Way::Pen(handle) => handle.pen().write(text),
            Way::Direct(write) => direct(write, text),
        }
    }

    /// As [`write`](Self::write), where an error is of no interest: a job must not fail because its progress cannot be shown.
    pub(crate) fn write_ignoring_errors(&self, text: &[u8]) {
        let _ = self.write(text);
    }

    /// Draws `frame` unless the destination is still busy: a later frame replaces it.
    #[cfg(feature = "indicatif")]
    pub(crate) fn draw(&self, frame: &[u8]) -> Drawn {
        match &self.0 {
            _ if frame.is_empty() => Drawn::Yes,
            Way::Pen(handle) => handle.pen().draw(frame),
            Way::Direct(write) => match direct(write, frame) {
                Ok(()) => Drawn::Yes,
                Err(_) => Drawn::No,
            },
        }
    }

    /// How many lines could not be written.
    pub(crate) fn lost_lines(&self) -> u64 {
        match &self.0 {
            Way::Pen(handle) => handle.pen().lost_lines(),
            Way::Direct(_) => 0,
        }
    }

    /// Lets no thread wait for the destination while `last` runs, and then waits until all is written, or patience ends.
    pub(crate) fn end<T>(&self, last: impl FnOnce() -> T) -> T {
        match &self.0 {
            Way::Pen(handle) => {
                let hurry = handle.pen().hurry();
                let result = last();
                hurry.drain();
                result
            }
            Way::Direct(_) => last(),
        }
    }
}

fn direct(write: &Mutex<Box<dyn Write + Send>>, bytes: &[u8]) -> io::Result<()> {
    let mut write = write.lock().unwrap_or_else(PoisonError::into_inner);
    write.write_all(bytes)?;
    write.flush()
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}
