//! [`PendingThread`]: the manager's thread, before there is a manager. It is started first, because starting a thread takes as
//! long as everything else that a pool starts with.

use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;

use super::ProcessManager;
use crate::error::PoolError;
use crate::os::OomKills;

/// A thread that waits for its manager.
pub(crate) struct PendingThread {
    sender: Sender<ProcessManager>,
    thread: JoinHandle<()>,
}

impl PendingThread {
    pub(crate) fn new() -> Result<Self, PoolError> {
        let (sender, receiver) = crossbeam_channel::bounded::<ProcessManager>(1);
        let run = move || {
            // Reading the system's files takes a while, so it happens beside the preparations of the thread that starts the pool.
            let oom_kills = OomKills::new();
            if let Ok(manager) = receiver.recv() {
                manager.run(oom_kills);
            }
        };
        let started = thread::Builder::new().name("proc-pool manager".into()).spawn(run);
        let thread = started.map_err(PoolError::io("start a thread"))?;
        Ok(Self { sender, thread })
    }

    /// Runs `manager` in this thread. Returns the handle of the thread.
    pub(crate) fn start(self, manager: ProcessManager) -> JoinHandle<()> {
        // The thread is waiting for it, so this does not fail.
        let _ = self.sender.send(manager);
        self.thread
    }
}
