//! Where a collector sends records: to a subscriber, to the logger of the `log` crate, or nowhere yet.

use tracing_core::subscriber::NoSubscriber;
use tracing_core::{Dispatch, dispatcher};

/// Where records go now.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    Subscriber(Dispatch),
    /// The process has a logger of the `log` crate and no subscriber.
    #[cfg(feature = "log")]
    Logger,
    /// The process has neither: events are dropped.
    None,
}

/// Which subscriber a collector uses.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    Subscriber(Dispatch),
    /// The first subscriber that the process gets.
    FirstSubscriber,
}

impl Destination {
    /// Returns this thread's default subscriber, if it has one.
    pub(crate) fn current() -> Self {
        match dispatcher::get_default(Clone::clone) {
            none if none.is::<NoSubscriber>() => Self::FirstSubscriber,
            dispatch => Self::Subscriber(dispatch),
        }
    }

    /// Returns where records go now. Once a subscriber was found, it stays the destination.
    pub(crate) fn sink(&mut self) -> Sink {
        if let Self::FirstSubscriber = self {
            *self = Self::current();
        }
        match self {
            Self::Subscriber(dispatch) if dispatch.is::<NoSubscriber>() => Sink::None,
            Self::Subscriber(dispatch) => Sink::Subscriber(dispatch.clone()),
            Self::FirstSubscriber => logger(),
        }
    }
}

#[cfg(feature = "log")]
fn logger() -> Sink {
    use tracing_log::log;
    match log::max_level() {
        log::LevelFilter::Off => Sink::None,
        _ => Sink::Logger,
    }
}

#[cfg(not(feature = "log"))]
fn logger() -> Sink {
    Sink::None
}
