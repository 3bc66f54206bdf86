//! A set of channels that may be listened to from one thread and later from another.
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
use ipc_channel::TrySelectError;
use ipc_channel::ipc::{self, IpcReceiver, IpcReceiverSet, IpcSelectionResult, IpcSender, OpaqueIpcReceiver};
use serde::{Deserialize, Serialize};

/// What was heard and not yet asked for: a peer that says much has to wait.
const MAX_HEARD: usize = 64;

type Heard = io::Result<Vec<IpcSelectionResult>>;

/// `ipc-channel`'s set, which waits on an I/O completion port: for any number of channels.
pub(crate) struct ReceiverSet {
    heard: Receiver<Heard>,
    added: Sender<(u64, OpaqueIpcReceiver)>,
    bell: Bell,
    next: u64,
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

impl ReceiverSet {
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, woken) = ipc::channel::<()>()?;
        let (tell, heard) = crossbeam_channel::bounded(MAX_HEARD);
        let (added, new) = crossbeam_channel::unbounded();
        let rung = Arc::new(AtomicBool::new(false));
        let listener = Listener {
            tell,
            new,
            rung: rung.clone(),
            keys: HashMap::new(),
        };
        thread::Builder::new()
            .name("proc-pool channels".into())
            .spawn(move || listener.listen(woken))?;
        Ok(Self {
            heard,
            added,
            bell: Bell { sender, rung },
            next: 0,
        })
    }

    /// Gives the number by which the channel's news come. One that can't be listened to seems closed.
    pub(crate) fn add<T>(&mut self, receiver: IpcReceiver<T>) -> io::Result<u64>
    where
        T: for<'de> Deserialize<'de> + Serialize,
    {
        let key = self.next;
        self.next += 1;
        let added = self.added.send((key, receiver.to_opaque()));
        added.map_err(|_| io::Error::other("nobody listens to channels any more"))?;
        self.bell.ring();
        Ok(key)
    }

    pub(crate) fn try_select_timeout(
        &mut self,
        patience: Duration,
    ) -> Result<Vec<IpcSelectionResult>, TrySelectError> {
        match self.heard.recv_timeout(patience) {
            Ok(Ok(results)) => Ok(results),
            Ok(Err(error)) => Err(TrySelectError::IoError(error)),
            Err(RecvTimeoutError::Timeout) => Err(TrySelectError::Empty),
            Err(RecvTimeoutError::Disconnected) => {
                let error = io::Error::other("nobody listens to channels any more");
                Err(TrySelectError::IoError(error))
            }
        }
    }
}

/// It panics when a peer writes what is no message: the others go on.
fn select(set: &mut IpcReceiverSet) -> Heard {
    panic::catch_unwind(AssertUnwindSafe(|| set.select()))
        .unwrap_or_else(|_| Err(io::Error::other("no message")))
}

/// The number of the bell's channel, which nobody is told.
const BELL: u64 = u64::MAX;

/// What the thread has.
struct Listener {
    tell: Sender<Heard>,
    new: Receiver<(u64, OpaqueIpcReceiver)>,
    rung: Arc<AtomicBool>,
    /// Channels' numbers by those of `ipc-channel`'s.
    keys: HashMap<u64, u64>,
}

impl Listener {
    /// The thread's life. It ends with the [`ReceiverSet`], which closes the bell.
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

/// The [`ReceiverSet`] is gone.
struct Ended;

#[cfg(test)]
mod tests {
    use super::*;

    /// A watchdog.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_listens_may_end() {
        let mut set = ReceiverSet::new().expect("there are channels");
        let (sender, receiver) = ipc::channel::<u32>().expect("there are channels");
        let key = set.add(receiver).expect("the thread lives");
        for round in 0..3 {
            let listened = thread::spawn(move || {
                // It begins a read, or would.
                let silence = set.try_select_timeout(Duration::from_millis(20));
                assert!(matches!(silence, Err(TrySelectError::Empty)));
                set
            });
            set = listened.join().expect("no panic");
            sender.send(round).expect("somebody listens");
            let mut heard = set.try_select_timeout(LONG).expect("it comes");
            let (from, message) = heard.pop().expect("one").unwrap();
            assert_eq!((from, message.to::<u32>().expect("a number")), (key, round));
        }
        drop(sender);
        let heard = set.try_select_timeout(LONG).expect("it comes");
        assert!(matches!(heard[..], [IpcSelectionResult::ChannelClosed(of)] if of == key));
    }
}
