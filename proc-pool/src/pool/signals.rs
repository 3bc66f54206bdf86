//! The signals of the process, for all its pools: each pool that reacts to signals has a [`Subscription`].
//!
//! Signal handlers belong to the process. They are installed for the first subscription to a signal, and the previous
//! handlers are restored after the last one. A handler only writes a byte into a pipe; a thread reads the pipe and calls
//! the subscribers.

use std::io::{self, PipeReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::os::{Handlers, Signal};
use crate::panics::guarded;

/// The result of a subscriber's reaction to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// The subscriber has reacted.
    Done,
    /// The subscriber has nothing more to do about the signal. If all subscribers return this, the signal has the effect
    /// that it would have without them.
    Exhausted,
}

type Callback = Arc<dyn Fn(Signal) -> Reaction + Send + Sync>;

/// A subscription to signals, until it is dropped. Its callback may be called once more while it is being dropped.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    /// The process that made the subscription.
    process: u32,
}

struct Subscriber {
    id: u64,
    signals: Vec<Signal>,
    callback: Callback,
}

/// The installed handlers and the subscribers. It exists while there are subscriptions.
struct Hub {
    /// The process that made the hub.
    process: u32,
    handlers: Handlers,
    subscribers: Vec<Subscriber>,
}

/// The hub of the process, and the last id of a subscription.
static HUB: Mutex<(u64, Option<Hub>)> = Mutex::new((0, None));

fn hub() -> MutexGuard<'static, (u64, Option<Hub>)> {
    // No user code runs under this lock.
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscription {
    pub(crate) fn new(signals: Vec<Signal>, callback: Callback) -> io::Result<Self> {
        Self::with(signals, callback, Handlers::install)
    }

    /// Subscribes, and installs handlers by `install`.
    fn with(
        signals: Vec<Signal>,
        callback: Callback,
        install: impl FnOnce(&mut Handlers, &[Signal]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut guard = hub();
        let (last_id, slot) = &mut *guard;
        if slot.as_ref().is_some_and(|hub| hub.process != std::process::id()) {
            // A copy of the parent's hub: its thread does not exist here, and its pipe belongs to the parent.
            std::mem::forget(slot.take());
        }
        let mut hub = match slot.take() {
            Some(hub) => hub,
            None => Hub::new()?,
        };
        *last_id += 1;
        let id = *last_id;
        hub.subscribers.push(Subscriber {
            id,
            signals,
            callback,
        });
        let signals = hub.signals();
        let installed = install(&mut hub.handlers, &signals);
        let removed = installed.is_err().then(|| hub.remove(id));
        if !hub.subscribers.is_empty() {
            *slot = Some(hub);
        }
        drop(guard);
        // Outside of the lock, because dropping the captures of a callback is user code.
        drop(removed);
        installed.map(|()| Self {
            id,
            process: std::process::id(),
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // In a forked child, a thread that does not exist there may hold the lock; and the handlers are the parent's.
        if self.process != std::process::id() {
            return;
        }
        let mut guard = hub();
        let (_, slot) = &mut *guard;
        let removed = slot.as_mut().map(|hub| hub.remove(self.id));
        let last = slot.take_if(|hub| hub.subscribers.is_empty());
        // The thread ends when its pipe closes.
        drop(last);
        drop(guard);
        // Outside of the lock, because it is user code.
        let _ = guarded(|| drop(removed));
    }
}

impl Hub {
    fn new() -> io::Result<Self> {
        let (handlers, pipe) = Handlers::new()?;
        thread::Builder::new()
            .name("proc-pool signals".into())
            .spawn(move || run(pipe))?;
        Ok(Self {
            process: std::process::id(),
            handlers,
            subscribers: Vec::new(),
        })
    }

    /// Returns the signals of all subscribers.
    fn signals(&self) -> Vec<Signal> {
        let all = self.subscribers.iter().flat_map(|subscriber| &subscriber.signals);
        all.copied().collect()
    }

    /// Removes a subscriber. The caller drops it outside of the lock.
    fn remove(&mut self, id: u64) -> Vec<Subscriber> {
        let removed = self.subscribers.extract_if(.., |it| it.id == id).collect();
        // It can fail only for a handler that is newly installed, and no handler is.
        let _ = self.handlers.install(&self.signals());
        removed
    }
}

/// Runs the thread: reads signals from the pipe and calls the subscribers.
fn run(mut pipe: PipeReader) {
    let mut byte = [0];
    while let Ok(1) = pipe.read(&mut byte) {
        let Some(signal) = Signal::of(byte[0]) else {
            continue;
        };
        let callbacks: Vec<Callback> = {
            let (_, hub) = &*hub();
            let subscribers = hub.iter().flat_map(|hub| &hub.subscribers);
            let subscribers = subscribers.filter(|subscriber| subscriber.signals.contains(&signal));
            subscribers
                .map(|subscriber| subscriber.callback.clone())
                .collect()
        };
        // A panic of one callback does not keep the others from being called. The callback is dropped within the guard: it
        // may be the last reference, and its drop is user code.
        let call = |callback: Callback| guarded(move || callback(signal)).unwrap_or(Reaction::Done);
        let reactions: Vec<Reaction> = callbacks.into_iter().map(call).collect();
        if !reactions.is_empty() && reactions.iter().all(|it| *it == Reaction::Exhausted) {
            unsubscribe_and_raise(signal);
        }
    }
}

/// Restores the previous handler of the signal for good, and raises the signal again.
fn unsubscribe_and_raise(signal: Signal) {
    if let (_, Some(hub)) = &mut *hub() {
        for subscriber in &mut hub.subscribers {
            subscriber.signals.retain(|it| *it != signal);
        }
        let _ = hub.handlers.install(&hub.signals());
    }
    crate::os::raise(signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_installation_is_an_error_and_no_deadlock() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        thread::spawn(move || {
            let fail = |_: &mut Handlers, _: &[Signal]| Err(io::ErrorKind::PermissionDenied.into());
            let other = Subscription::new(vec![Signal::Dump], Arc::new(|_| Reaction::Done));
            // The drop of this capture makes a subscription, and so takes the lock.
            let nested = SubscribesOnDrop;
            let callback = move |_| {
                let _ = &nested;
                Reaction::Done
            };
            let refused = Subscription::with(vec![Signal::Dump], Arc::new(callback), fail);
            drop(other);
            let _ = sender.send(refused.map_err(|e| e.kind()).map(|_| ()));
        });
        let refused = receiver.recv_timeout(std::time::Duration::from_secs(30));
        assert_eq!(refused, Ok(Err(io::ErrorKind::PermissionDenied)));
    }

    struct SubscribesOnDrop;

    impl Drop for SubscribesOnDrop {
        fn drop(&mut self) {
            drop(Subscription::new(
                vec![Signal::Dump],
                Arc::new(|_| Reaction::Done),
            ));
        }
    }
}
