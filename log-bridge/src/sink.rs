//! Where a collector replays: a subscriber, the logger of the `log` crate, or nothing yet.

use tracing_core::subscriber::NoSubscriber;
use tracing_core::{Dispatch, dispatcher};

/// The receiver of records.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    Subscriber(Dispatch),
    /// The process has a logger of the `log` crate and no subscriber.
    #[cfg(feature = "log")]
    Logger,
    Nothing,
}

/// Which subscriber a collector replays into.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Given(Dispatch),
    /// The one that the process will have.
    Later,
}

impl Target {
    /// This thread's default.
    pub(crate) fn current() -> Self {
        match dispatcher::get_default(Clone::clone) {
            none if none.is::<NoSubscriber>() => Self::Later,
            dispatch => Self::Given(dispatch),
        }
    }

    /// What there is to ask; a subscriber that was found stays.
    pub(crate) fn sink(&mut self) -> Sink {
        if let Self::Later = self {
            *self = Self::current();
        }
        match self {
            Self::Given(dispatch) if dispatch.is::<NoSubscriber>() => Sink::Nothing,
            Self::Given(dispatch) => Sink::Subscriber(dispatch.clone()),
            Self::Later => logger(),
        }
    }
}

#[cfg(feature = "log")]
fn logger() -> Sink {
    use tracing_log::log;
    match log::max_level() {
        log::LevelFilter::Off => Sink::Nothing,
        _ => Sink::Logger,
    }
}

#[cfg(not(feature = "log"))]
fn logger() -> Sink {
    Sink::Nothing
}
