//! What time it is for a reporter: real, or what a test says.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tells the time since the reporter began.
#[derive(Debug)]
pub(crate) enum Clock {
    Running(Instant),
    Held(Mutex<Duration>),
}

impl Clock {
    pub(crate) fn running() -> Self {
        Self::Running(Instant::now())
    }

    pub(crate) fn held() -> Self {
        Self::Held(Mutex::default())
    }

    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Running(since) => since.elapsed(),
            Self::Held(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a held clock on.
    pub(crate) fn advance(&self, by: Duration) {
        if let Self::Held(now) = self {
            let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
            *now = now.saturating_add(by);
        }
    }
}
