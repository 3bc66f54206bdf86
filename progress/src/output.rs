//! Where everything is drawn: standard error, or what a test put in its place.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// A destination that the renderer, the log writers and the terminal share.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<Destination>>);

enum Destination {
    Stderr,
    Given(Box<dyn Write + Send>),
}

impl Output {
    pub(crate) fn stderr() -> Self {
        Self(Arc::new(Mutex::new(Destination::Stderr)))
    }

    pub(crate) fn given(write: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Destination::Given(write))))
    }

    /// Writes all of `bytes` at once.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Destination::Stderr => io::stderr().write_all(bytes),
            Destination::Given(write) => {
                write.write_all(bytes)?;
                write.flush()
            }
        }
    }

    /// Writes what nobody needs: a job must not fail because its progress can't be shown.
    pub(crate) fn write_ignoring_errors(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let _ = self.write(bytes);
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}
