//! The time and thread of the event that is being replayed.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::wire::record::EventRecord;

thread_local! {
    static ORIGIN: RefCell<Origin> = const {
        RefCell::new(Origin {
            state: State::NoReplay,
            timestamp: 0,
            thread: 0,
            thread_name: String::new(),
        })
    };
}

/// Reused from event to event, for the buffer of the name.
struct Origin {
    state: State,
    timestamp: u64,
    thread: u64,
    thread_name: String,
}

#[derive(PartialEq, Eq)]
enum State {
    Replaying,
    NoReplay,
}

/// Returns when the worker emitted the event that is being replayed on this thread, or `None` outside a replay.
///
/// It is meant for layers; [`EmissionTime`](crate::EmissionTime) uses it.
#[must_use]
pub fn current_timestamp() -> Option<SystemTime> {
    with_origin(|origin| UNIX_EPOCH + Duration::from_nanos(origin.timestamp))
}

/// Returns the number and name of the worker's thread that emitted the event which is being replayed on this thread, or
/// `None` outside a replay.
///
/// A worker's threads are numbered from 1 in the order of their first events.
#[must_use]
pub fn current_thread() -> Option<(u64, Option<String>)> {
    with_origin(|origin| {
        let name = Some(&origin.thread_name).filter(|name| !name.is_empty());
        (origin.thread, name.cloned())
    })
}

/// Calls `read` during a replay. A thread that is ending has no origin.
fn with_origin<T>(read: impl FnOnce(&Origin) -> T) -> Option<T> {
    ORIGIN
        .try_with(|origin| {
            let origin = origin.borrow();
            (origin.state == State::Replaying).then(|| read(&origin))
        })
        .ok()
        .flatten()
}

/// Ends the replay of an event, also when a subscriber panics.
struct ReplayGuard;

impl ReplayGuard {
    fn new(record: &EventRecord<'_>) -> Self {
        ORIGIN.with_borrow_mut(|origin| {
            origin.state = State::Replaying;
            origin.timestamp = record.header.timestamp;
            origin.thread = record.header.thread;
            origin.thread_name.clear();
            origin
                .thread_name
                .push_str(record.thread_name.unwrap_or_default());
        });
        Self
    }
}

impl Drop for ReplayGuard {
    fn drop(&mut self) {
        ORIGIN.with_borrow_mut(|origin| origin.state = State::NoReplay);
    }
}

/// Calls `replay` while the time and thread of `record` are the current ones.
pub(crate) fn replaying<T>(record: &EventRecord<'_>, replay: impl FnOnce() -> T) -> T {
    let _guard = ReplayGuard::new(record);
    replay()
}
