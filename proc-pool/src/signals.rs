//! Who wants to know of the process's signals.
//!
//! Handlers are the process's: they are installed for the first one who wants a signal, and what was there before is put
//! back when the last one is gone. A handler only writes a byte into a pipe; a thread of the pool's reads it and tells
//! everybody.

use std::io::{self, PipeReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::os::{Handlers, Signal};
use crate::panics::guarded;

/// What somebody says who was told of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Something was done about it.
    Done,
    /// Nothing is left to be done: let it do what it would have done otherwise, if all say so.
    Exhausted,
}

type React = Arc<dyn Fn(Signal) -> Answer + Send + Sync>;

/// Somebody's wish to be told, while it is not dropped. He may be told once more at that moment.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: u64,
    /// The process that made it.
    process: u32,
}

struct Subscriber {
    id: u64,
    wanted: Vec<Signal>,
    react: React,
}

/// Exists while somebody listens.
struct Hub {
    /// The process that made it.
    process: u32,
    handlers: Handlers,
    subscribers: Vec<Subscriber>,
}

/// One for the process, as its handlers are.
static HUB: Mutex<(u64, Option<Hub>)> = Mutex::new((0, None));

fn hub() -> MutexGuard<'static, (u64, Option<Hub>)> {
    // Nothing of others runs while it is held.
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscription {
    pub(crate) fn new(wanted: Vec<Signal>, react: React) -> io::Result<Self> {
        Self::with(wanted, react, Handlers::install)
    }

    /// Whose handlers are installed by `install`.
    fn with(
        wanted: Vec<Signal>,
        react: React,
        install: impl FnOnce(&mut Handlers, &[Signal]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut guard = hub();
        let (ids, hub) = &mut *guard;
        if hub.as_ref().is_some_and(|hub| hub.process != std::process::id()) {
            // A copy of the parent's: its thread is not here, and its pipe is the parent's.
            std::mem::forget(hub.take());
        }
        let mut listening = match hub.take() {
            Some(listening) => listening,
            None => Hub::new()?,
        };
        *ids += 1;
        let id = *ids;
        listening.subscribers.push(Subscriber { id, wanted, react });
        let wanted = listening.wanted();
        let installed = install(&mut listening.handlers, &wanted);
        let removed = installed.is_err().then(|| listening.remove(id));
        if !listening.subscribers.is_empty() {
            *hub = Some(listening);
        }
        drop(guard);
        // After the lock: the drop of what `react` has captured is user code.
        drop(removed);
        installed.map(|()| Self {
            id,
            process: std::process::id(),
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that is not there, and the handlers are no concern of it.
        if self.process != std::process::id() {
            return;
        }
        let mut guard = hub();
        let (_, hub) = &mut *guard;
        let removed = hub.as_mut().map(|hub| hub.remove(self.id));
        let last = hub.take_if(|hub| hub.subscribers.is_empty());
        // With its pipe's end, the thread ends.
        drop(last);
        drop(guard);
        // After the lock, too.
        let _ = guarded(|| drop(removed));
    }
}

impl Hub {
    fn new() -> io::Result<Self> {
        let (handlers, heard) = Handlers::new()?;
        thread::Builder::new()
            .name("proc-pool signals".into())
            .spawn(move || listen(heard))?;
        Ok(Self {
            process: std::process::id(),
            handlers,
            subscribers: Vec::new(),
        })
    }

    fn wanted(&self) -> Vec<Signal> {
        let all = self.subscribers.iter().flat_map(|subscriber| &subscriber.wanted);
        all.copied().collect()
    }

    /// Removes a subscriber, to be dropped without the lock.
    fn remove(&mut self, id: u64) -> Vec<Subscriber> {
        let removed = self.subscribers.extract_if(.., |it| it.id == id).collect();
        // It fails only for what is installed anew.
        let _ = self.handlers.install(&self.wanted());
        removed
    }
}

/// The thread's life.
fn listen(mut heard: PipeReader) {
    let mut byte = [0];
    while let Ok(1) = heard.read(&mut byte) {
        let Some(signal) = Signal::of(byte[0]) else {
            continue;
        };
        let told: Vec<React> = {
            let (_, hub) = &*hub();
            let subscribers = hub.iter().flat_map(|hub| &hub.subscribers);
            let told = subscribers.filter(|subscriber| subscriber.wanted.contains(&signal));
            told.map(|subscriber| subscriber.react.clone()).collect()
        };
        // Others hear of it after a panic of one, too. `react` may be the last reference, and its drop user code.
        let tell = |react: React| guarded(move || react(signal)).unwrap_or(Answer::Done);
        let answers: Vec<Answer> = told.into_iter().map(tell).collect();
        if !answers.is_empty() && answers.iter().all(|answer| *answer == Answer::Exhausted) {
            as_without_us(signal);
        }
    }
}

/// Puts back what was there before us, for good, and lets the signal do that.
fn as_without_us(signal: Signal) {
    if let (_, Some(hub)) = &mut *hub() {
        for subscriber in &mut hub.subscribers {
            subscriber.wanted.retain(|wanted| *wanted != signal);
        }
        let _ = hub.handlers.install(&hub.wanted());
    }
    crate::os::raise(signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_that_cannot_be_installed_are_an_error_and_no_deadlock() {
        let (tell, told) = crossbeam_channel::bounded(1);
        thread::spawn(move || {
            let fail = |_: &mut Handlers, _: &[Signal]| Err(io::ErrorKind::PermissionDenied.into());
            let kept = Subscription::new(vec![Signal::Dump], Arc::new(|_| Answer::Done));
            // Its drop subscribes, too, which takes the lock.
            let nested = OnDrop;
            let react = move |_| {
                let _ = &nested;
                Answer::Done
            };
            let refused = Subscription::with(vec![Signal::Dump], Arc::new(react), fail);
            drop(kept);
            let _ = tell.send(refused.map_err(|e| e.kind()).map(|_| ()));
        });
        let refused = told.recv_timeout(std::time::Duration::from_secs(30));
        assert_eq!(refused, Ok(Err(io::ErrorKind::PermissionDenied)));
    }

    struct OnDrop;

    impl Drop for OnDrop {
        fn drop(&mut self) {
            drop(Subscription::new(vec![Signal::Dump], Arc::new(|_| Answer::Done)));
        }
    }
}
