//! The keeper's thread. It is made first: that takes as long as everything else that a pool starts with.

use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;

use super::Keeper;
use crate::error::PoolError;

/// A thread for a keeper.
pub(crate) struct Seat {
    give: Sender<Keeper>,
    thread: JoinHandle<()>,
}

impl Seat {
    pub(crate) fn new() -> Result<Self, PoolError> {
        let (give, take) = crossbeam_channel::bounded::<Keeper>(1);
        let keep = move || {
            if let Ok(keeper) = take.recv() {
                keeper.run();
            }
        };
        let started = thread::Builder::new().name("proc-pool keeper".into()).spawn(keep);
        let thread = started.map_err(PoolError::io("start a thread"))?;
        Ok(Self { give, thread })
    }

    /// Has the keeper begin; gives the thread that it lives in.
    pub(crate) fn begin(self, keeper: Keeper) -> JoinHandle<()> {
        // The thread waits for that.
        let _ = self.give.send(keeper);
        self.thread
    }
}
