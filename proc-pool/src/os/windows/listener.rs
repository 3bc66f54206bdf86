//! [`MessageListener`]: waits for messages of all workers of a pool on Windows, from any thread.
//!
//! The set of channels itself belongs to a thread of its own. The reason is that `ipc-channel` passes an event to each of its
//! reads; the system cancels such a read when the thread that began it ends, although the read is bound to a completion port.
//! So a caller that waited once and then ended would break the workers' channels.

use std::collections::HashMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use ipc_channel::ipc::{self, IpcReceiver, IpcReceiverSet, IpcSelectionResult, IpcSender, OpaqueIpcReceiver};

use crate::message::WorkerMessage;
use crate::os::ConnectionEvent;

/// Maximum number of results that wait for the caller. Then the thread stops receiving, and a peer that sends much has to wait.
const MAX_WAITING: usize = 64;

/// The leader's end of the channel on which a worker's messages arrive.
pub(crate) type MessageReceiver = IpcReceiver<WorkerMessage>;

type Selected = io::Result<Vec<IpcSelectionResult>>;

/// Waits for the messages of many workers. A thread waits in `ipc-channel`'s set, on an I/O completion port.
pub(crate) struct MessageListener {
    selected: Receiver<Selected>,
    added: Sender<(u64, OpaqueIpcReceiver)>,
    wakeup: ThreadWakeup,
    next: u64,
}

impl std::fmt::Debug for MessageListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageListener")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// Ends the wait of its listener, or the next one if it does not wait now.
#[derive(Debug)]
pub(crate) struct ListenerWaker(Sender<Selected>);

impl ListenerWaker {
    pub(crate) fn wake(&self) {
        // If the queue is full, the listener does not wait anyway.
        let _ = self.0.try_send(Ok(Vec::new()));
    }
}

/// Wakes the thread. While one wakeup is pending, no other is sent.
struct ThreadWakeup {
    sender: IpcSender<()>,
    pending: Arc<AtomicBool>,
}

impl ThreadWakeup {
    fn send(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            // It fails only if the thread has ended.
            let _ = self.sender.send(());
        }
    }
}

impl MessageListener {
    /// Makes a listener without workers, and the waker that ends its waits.
    pub(crate) fn new() -> io::Result<(Self, ListenerWaker)> {
        let (sender, woken) = ipc::channel::<()>()?;
        let (events, selected) = crossbeam_channel::bounded(MAX_WAITING);
        let waker = ListenerWaker(events.clone());
        let (added, new) = crossbeam_channel::unbounded();
        let pending = Arc::new(AtomicBool::new(false));
        let listener_thread = ListenerThread {
            events,
            new,
            pending: pending.clone(),
            keys: HashMap::new(),
        };
        thread::Builder::new()
            .name("proc-pool channels".into())
            .spawn(move || listener_thread.run(woken))?;
        let listener = Self {
            selected,
            added,
            wakeup: ThreadWakeup { sender, pending },
            next: 0,
        };
        Ok((listener, waker))
    }

    /// Adds a worker. Returns the key of its events. A channel that can't be received from is reported as closed.
    pub(crate) fn add(&mut self, messages: MessageReceiver) -> io::Result<u64> {
        let key = self.next;
        self.next += 1;
        let added = self.added.send((key, messages.to_opaque()));
        added.map_err(|_| io::Error::other("the thread that receives from channels has ended"))?;
        self.wakeup.send();
        Ok(key)
    }

    /// Waits for an event of a worker, for the waker, or for `timeout`. Passes events with their keys to `on_event`. Returns
    /// `false` if the timeout has ended the wait.
    pub(crate) fn wait(
        &mut self,
        timeout: Duration,
        mut on_event: impl FnMut(u64, ConnectionEvent),
    ) -> io::Result<bool> {
        let results = match self.selected.recv_timeout(timeout) {
            Ok(results) => results?,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other(
                    "the thread that receives from channels has ended",
                ));
            }
        };
        for result in results {
            match result {
                IpcSelectionResult::MessageReceived(key, message) => {
                    on_event(
                        key,
                        ConnectionEvent::Message(message.to().unwrap_or(WorkerMessage::Invalid)),
                    );
                }
                IpcSelectionResult::ChannelClosed(key) => on_event(key, ConnectionEvent::Closed),
            }
        }
        Ok(true)
    }
}

/// Waits for results. `ipc-channel` panics if a peer writes what is not a message; this is an error here, and the other channels
/// continue.
fn select(set: &mut IpcReceiverSet) -> Selected {
    panic::catch_unwind(AssertUnwindSafe(|| set.select()))
        .unwrap_or_else(|_| Err(io::Error::other("a peer wrote what is not a message")))
}

/// The key of the wakeup's channel. It is never returned.
const WAKEUP: u64 = u64::MAX;

/// The state of the thread.
struct ListenerThread {
    events: Sender<Selected>,
    new: Receiver<(u64, OpaqueIpcReceiver)>,
    pending: Arc<AtomicBool>,
    /// The keys of the channels, by the numbers that `ipc-channel` has for them.
    keys: HashMap<u64, u64>,
}

impl ListenerThread {
    /// Runs the thread. It ends when the [`MessageListener`] is dropped, which closes the wakeup's channel.
    fn run(mut self, woken: IpcReceiver<()>) {
        let Ok(mut set) = IpcReceiverSet::new() else {
            return;
        };
        let Ok(wakeup) = set.add(woken) else { return };
        self.keys.insert(wakeup, WAKEUP);
        loop {
            let selected = select(&mut set);
            let mut selected = selected.map(|results| self.with_keys(results, wakeup));
            match self.add_new(&mut set) {
                Ok(refused) => {
                    if let Ok(results) = &mut selected {
                        results.extend(refused.into_iter().map(IpcSelectionResult::ChannelClosed));
                    }
                }
                Err(ListenerDropped) => return self.end(set),
            }
            let nothing = selected.as_ref().is_ok_and(Vec::is_empty);
            if !nothing && self.events.send(selected).is_err() {
                return self.end(set);
            }
        }
    }

    /// Waits until all channels are closed. When a set with open channels is dropped, `ipc-channel` cancels their reads, and
    /// aborts the process if the system reports a read twice. The workers have ended, or end soon.
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
                // The set may have lost some of its channels. So it is leaked, until the process ends.
                Err(_) => return std::mem::forget(set),
            }
        }
    }

    /// Replaces the numbers of `ipc-channel` with keys, and removes the wakeup.
    fn with_keys(&mut self, results: Vec<IpcSelectionResult>, wakeup: u64) -> Vec<IpcSelectionResult> {
        let translate = |result| match result {
            IpcSelectionResult::MessageReceived(id, _) if id == wakeup => {
                // A channel that is added from now on sends a new wakeup.
                self.pending.store(false, Ordering::SeqCst);
                None
            }
            IpcSelectionResult::MessageReceived(id, message) => {
                let key = self.keys.get(&id)?;
                Some(IpcSelectionResult::MessageReceived(*key, message))
            }
            IpcSelectionResult::ChannelClosed(id) => {
                let key = self.keys.remove(&id).filter(|key| *key != WAKEUP)?;
                Some(IpcSelectionResult::ChannelClosed(key))
            }
        };
        results.into_iter().filter_map(translate).collect()
    }

    /// Adds new channels to the set. Returns the keys of those that can't be added.
    fn add_new(&mut self, set: &mut IpcReceiverSet) -> Result<Vec<u64>, ListenerDropped> {
        let mut refused = Vec::new();
        loop {
            match self.new.try_recv() {
                Ok((key, receiver)) => match set.add_opaque(receiver) {
                    Ok(id) => drop(self.keys.insert(id, key)),
                    Err(_) => refused.push(key),
                },
                Err(TryRecvError::Empty) => return Ok(refused),
                Err(TryRecvError::Disconnected) => return Err(ListenerDropped),
            }
        }
    }
}

/// The [`MessageListener`] was dropped.
struct ListenerDropped;

#[cfg(test)]
mod tests {
    use super::*;

    /// A watchdog.
    const LONG: Duration = Duration::from_secs(60);

    fn poll(listener: &mut MessageListener, timeout: Duration) -> Vec<(u64, ConnectionEvent)> {
        let mut events = Vec::new();
        let waited = listener.wait(timeout, |key, event| events.push((key, event)));
        waited.expect("the thread lives");
        events
    }

    #[test]
    fn messages_arrive_after_the_thread_that_waited_has_ended() {
        let (mut listener, waker) = MessageListener::new().expect("there are channels");
        let (sender, receiver) = ipc::channel::<WorkerMessage>().expect("there are channels");
        let key = listener.add(receiver).expect("the thread lives");
        for _ in 0..3 {
            let waited = thread::spawn(move || {
                // If this thread read from the channels itself, it would begin a read here.
                assert!(poll(&mut listener, Duration::from_millis(20)).is_empty());
                listener
            });
            listener = waited.join().expect("no panic");
            sender.send(WorkerMessage::Wakeup).expect("the listener lives");
            assert_eq!(
                poll(&mut listener, LONG),
                [(key, ConnectionEvent::Message(WorkerMessage::Wakeup))]
            );
        }
        waker.wake();
        assert!(poll(&mut listener, LONG).is_empty());
        drop(sender);
        assert_eq!(poll(&mut listener, LONG), [(key, ConnectionEvent::Closed)]);
    }
}
