//! The leader's ear: a set of channels that may be listened to from one thread and later from another.
//!
//! The set itself lives in a thread of its own. `ipc-channel` gives an event to each of its reads, and the system cancels
//! such a read when the thread that began it ends, although it is bound to a completion port: a caller that listened
//! once and ended would take the workers' channels along.

use std::collections::HashMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use ipc_channel::ipc::{self, IpcReceiver, IpcReceiverSet, IpcSelectionResult, IpcSender, OpaqueIpcReceiver};

use crate::os::Heard;
use crate::protocol::Note;

/// What was heard and not yet asked for: a peer that says much has to wait.
const MAX_HEARD: usize = 64;

/// The channel that a worker's notes come from.
pub(crate) type Notes = IpcReceiver<Note>;

type Selected = io::Result<Vec<IpcSelectionResult>>;

/// Waits for the notes of many workers: `ipc-channel`'s set, which waits on an I/O completion port.
pub(crate) struct Listener {
    selected: Receiver<Selected>,
    added: Sender<(u64, OpaqueIpcReceiver)>,
    bell: Bell,
    next: u64,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// Ends a wait of its listener's: also one that begins later.
#[derive(Debug)]
pub(crate) struct Waker(Sender<Selected>);

impl Waker {
    pub(crate) fn wake(&self) {
        // When the queue is full, the listener wakes anyway.
        let _ = self.0.try_send(Ok(Vec::new()));
    }
}

/// Wakes the thread. One is enough until it is heard.
struct Bell {
    sender: IpcSender<()>,
    rung: Arc<AtomicBool>,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // It fails only when the thread has ended.
            let _ = self.sender.send(());
        }
    }
}

impl Listener {
    /// A listener without workers, and what ends its waits.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let (sender, woken) = ipc::channel::<()>()?;
        let (tell, selected) = crossbeam_channel::bounded(MAX_HEARD);
        let waker = Waker(tell.clone());
        let (added, new) = crossbeam_channel::unbounded();
        let rung = Arc::new(AtomicBool::new(false));
        let listening = Listening {
            tell,
            new,
            rung: rung.clone(),
            keys: HashMap::new(),
        };
        thread::Builder::new()
            .name("proc-pool channels".into())
            .spawn(move || listening.listen(woken))?;
        let listener = Self {
            selected,
            added,
            bell: Bell { sender, rung },
            next: 0,
        };
        Ok((listener, waker))
    }

    /// Listens to a worker; returns the key of what it says. One that can't be listened to seems closed.
    pub(crate) fn add(&mut self, notes: Notes) -> io::Result<u64> {
        let key = self.next;
        self.next += 1;
        let added = self.added.send((key, notes.to_opaque()));
        added.map_err(|_| io::Error::other("the thread that listens to channels has ended"))?;
        self.bell.ring();
        Ok(key)
    }

    /// Waits until a worker has said something, its channel has closed, the waker wakes, or `patience` is over. Returns
    /// whether anything was heard.
    pub(crate) fn wait(&mut self, patience: Duration, mut heard: impl FnMut(u64, Heard)) -> io::Result<bool> {
        let results = match self.selected.recv_timeout(patience) {
            Ok(results) => results?,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the thread that listens to channels has ended"));
            }
        };
        for result in results {
            match result {
                IpcSelectionResult::MessageReceived(key, message) => {
                    heard(key, Heard::Note(message.to().unwrap_or(Note::Nonsense)));
                }
                IpcSelectionResult::ChannelClosed(key) => heard(key, Heard::Closed),
            }
        }
        Ok(true)
    }
}

/// It panics when a peer writes what is no message: the others go on.
fn select(set: &mut IpcReceiverSet) -> Selected {
    panic::catch_unwind(AssertUnwindSafe(|| set.select()))
        .unwrap_or_else(|_| Err(io::Error::other("no message")))
}

/// The number of the bell's channel, which nobody is told.
const BELL: u64 = u64::MAX;

/// What the thread has.
struct Listening {
    tell: Sender<Selected>,
    new: Receiver<(u64, OpaqueIpcReceiver)>,
    rung: Arc<AtomicBool>,
    /// Channels' numbers by those of `ipc-channel`'s.
    keys: HashMap<u64, u64>,
}

impl Listening {
    /// The thread's life. It ends with the [`Listener`], which closes the bell.
    fn listen(mut self, woken: IpcReceiver<()>) {
        let Ok(mut set) = IpcReceiverSet::new() else {
            return;
        };
        let Ok(bell) = set.add(woken) else { return };
        self.keys.insert(bell, BELL);
        loop {
            let selected = select(&mut set);
            let mut heard = selected.map(|results| self.translated(results, bell));
            match self.admit(&mut set) {
                Ok(refused) => {
                    if let Ok(heard) = &mut heard {
                        heard.extend(refused.into_iter().map(IpcSelectionResult::ChannelClosed));
                    }
                }
                Err(Ended) => return self.end(set),
            }
            let nothing = heard.as_ref().is_ok_and(Vec::is_empty);
            if !nothing && self.tell.send(heard).is_err() {
                return self.end(set);
            }
        }
    }

    /// Waits until all channels are closed: dropping a set with open ones, `ipc-channel` cancels their reads, and
    /// aborts the process when the system tells of one twice. The workers have ended, or do soon.
    fn end(mut self, mut set: IpcReceiverSet) {
        while !self.keys.is_empty() {
            match select(&mut set) {
                Ok(results) => {
                    for result in results {
                        if let IpcSelectionResult::ChannelClosed(id) = result {
                            self.keys.remove(&id);
                        }
                    }
                }
                // It may not know all its channels any more: they are left to the process's end.
                Err(_) => return std::mem::forget(set),
            }
        }
    }

    /// With our numbers, and without the bell.
    fn translated(&mut self, results: Vec<IpcSelectionResult>, bell: u64) -> Vec<IpcSelectionResult> {
        let translate = |result| match result {
            IpcSelectionResult::MessageReceived(id, _) if id == bell => {
                // What is added from now on rings again.
                self.rung.store(false, Ordering::SeqCst);
                None
            }
            IpcSelectionResult::MessageReceived(id, message) => {
                let key = self.keys.get(&id)?;
                Some(IpcSelectionResult::MessageReceived(*key, message))
            }
            IpcSelectionResult::ChannelClosed(id) => {
                let key = self.keys.remove(&id).filter(|key| *key != BELL)?;
                Some(IpcSelectionResult::ChannelClosed(key))
            }
        };
        results.into_iter().filter_map(translate).collect()
    }

    /// Listens to what was added; gives the numbers of those that can't be listened to.
    fn admit(&mut self, set: &mut IpcReceiverSet) -> Result<Vec<u64>, Ended> {
        let mut refused = Vec::new();
        loop {
            match self.new.try_recv() {
                Ok((key, receiver)) => match set.add_opaque(receiver) {
                    Ok(id) => drop(self.keys.insert(id, key)),
                    Err(_) => refused.push(key),
                },
                Err(TryRecvError::Empty) => return Ok(refused),
                Err(TryRecvError::Disconnected) => return Err(Ended),
            }
        }
    }
}

/// The [`Listener`] is gone.
struct Ended;

#[cfg(test)]
mod tests {
    use super::*;

    /// A watchdog.
    const LONG: Duration = Duration::from_secs(60);

    fn hear(listener: &mut Listener, patience: Duration) -> Vec<(u64, Heard)> {
        let mut all = Vec::new();
        let waited = listener.wait(patience, |key, heard| all.push((key, heard)));
        waited.expect("the thread lives");
        all
    }

    #[test]
    fn a_thread_that_has_listened_may_end() {
        let (mut listener, waker) = Listener::new().expect("there are channels");
        let (sender, receiver) = ipc::channel::<Note>().expect("there are channels");
        let key = listener.add(receiver).expect("the thread lives");
        for _ in 0..3 {
            let listened = thread::spawn(move || {
                // It begins a read, or would.
                assert!(hear(&mut listener, Duration::from_millis(20)).is_empty());
                listener
            });
            listener = listened.join().expect("no panic");
            sender.send(Note::Bell).expect("the listener lives");
            assert_eq!(hear(&mut listener, LONG), [(key, Heard::Note(Note::Bell))]);
        }
        waker.wake();
        assert!(hear(&mut listener, LONG).is_empty());
        drop(sender);
        assert_eq!(hear(&mut listener, LONG), [(key, Heard::Closed)]);
    }
}
