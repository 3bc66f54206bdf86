//! [`HiddenThread`]: the one thread that runs the async client. The public interface is synchronous.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::Error;

/// A thread with a runtime, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct HiddenThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HiddenThread {
    pub(crate) fn start() -> Result<Self, Error> {
        let failed = |source| Error::Os {
            step: "start the thread of the NATS client",
            source,
        };
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("invoker-nats".into()).spawn(move || {
            // It also ends if the sender is dropped.
            let _ = runtime.block_on(stopped);
        });
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread.map_err(failed)?),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a future on the thread, and waits for its output. Unlike `Handle::block_on`, callers may be inside of a runtime of theirs.
    pub(crate) fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        run_on(&self.handle, future)
    }
}

/// See [`HiddenThread::run`].
pub(crate) fn run_on<T: Send + 'static>(
    handle: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let (send, receive) = mpsc::sync_channel(1);
    handle.spawn(async move {
        let _ = send.send(future.await);
    });
    // The thread outlives all callers, which have a reference to it.
    receive
        .recv()
        .unwrap_or_else(|_| panic!("the thread of the NATS client panicked"))
}

impl Drop for HiddenThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
