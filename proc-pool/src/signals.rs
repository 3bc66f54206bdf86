//! Who wants to know of the process's signals.
//!
//! Handlers are the process's: they are installed for the first one who wants a signal, and what was there before is put
//! back when the last one is gone. A handler only writes a byte into a pipe; a thread of the pool's reads it and tells
//! everybody.

use std::io::{self, PipeReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::os::{Handlers, Signal};

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
pub(crate) struct Subscription(u64);

struct Subscriber {
    id: u64,
    wanted: Vec<Signal>,
    react: React,
}

/// Exists while somebody listens.
struct Hub {
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
        let mut guard = hub();
        let (ids, hub) = &mut *guard;
        if hub.is_none() {
            let (handlers, heard) = Handlers::new()?;
            thread::Builder::new()
                .name("proc-pool signals".into())
                .spawn(move || listen(heard))?;
            *hub = Some(Hub {
                handlers,
                subscribers: Vec::new(),
            });
        }
        *ids += 1;
        let subscription = Self(*ids);
        if let Some(hub) = hub {
            let id = subscription.0;
            hub.subscribers.push(Subscriber { id, wanted, react });
            hub.handlers.install(&hub.wanted())?;
        }
        Ok(subscription)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut guard = hub();
        let (_, hub) = &mut *guard;
        if let Some(it) = hub {
            it.subscribers.retain(|subscriber| subscriber.id != self.0);
            // It fails only for what is installed anew.
            let _ = it.handlers.install(&it.wanted());
            if it.subscribers.is_empty() {
                // With its pipe's end, the thread ends.
                *hub = None;
            }
        }
    }
}

impl Hub {
    fn wanted(&self) -> Vec<Signal> {
        let all = self.subscribers.iter().flat_map(|subscriber| &subscriber.wanted);
        all.copied().collect()
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
        let answers: Vec<Answer> = told.iter().map(|react| quietly(react, signal)).collect();
        if !answers.is_empty() && answers.iter().all(|answer| *answer == Answer::Exhausted) {
            as_without_us(signal);
        }
    }
}

/// Somebody's panic has been printed and must not keep others from being told.
fn quietly(react: &React, signal: Signal) -> Answer {
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| react(signal)));
    told.unwrap_or(Answer::Done)
}

/// Puts back what was there before us, for good, and sends the signal again.
fn as_without_us(signal: Signal) {
    if let (_, Some(hub)) = &mut *hub() {
        for subscriber in &mut hub.subscribers {
            subscriber.wanted.retain(|wanted| *wanted != signal);
        }
        let _ = hub.handlers.install(&hub.wanted());
    }
    crate::os::raise(signal);
}
