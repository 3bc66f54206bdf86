//! [`HiddenThread`]: the one thread that runs the async client. The public interface is synchronous.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::Error;

/// A thread with a runtime, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct HiddenThread {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl HiddenThread {
    pub(crate) fn start() -> Result<Self, Error> {
        let failed = |source| Error::os("start the thread of the NATS client", source);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (_stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("invoker-nats".into());
        // It ends when the sender is dropped.
        let started = thread.spawn(move || drop(runtime.block_on(stopped)));
        started.map_err(failed)?;
        Ok(Self { handle, _stop })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for the output of a future, which the calling thread polls. Unlike in `Handle::block_on`, the caller may be inside of a
    /// runtime of its own.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let _entered = self.handle().enter();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
