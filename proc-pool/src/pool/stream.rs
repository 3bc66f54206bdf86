//! [`OutputStream`]: the outputs of many futures, for async programs.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;

use crate::pool::map::OutputOrder;

/// A stream of the outputs of futures, such as [`Handle`](crate::Handle)s, of which a bounded number is in progress at a time.
///
/// It takes the futures from an iterator, which submits the tasks and may be infinite: no more than there is room for, and
/// only while the stream is polled. No thread waits for it, and it works with any runtime. Dropping the stream drops the
/// futures in progress; a handle that is dropped withdraws its task.
///
/// ```
/// use futures_core::Stream;
/// use proc_pool::{OutputStream, Pool, TaskError};
/// # use std::{future::poll_fn, pin::Pin};
///
/// async fn total(pool: &Pool<u64, u64>) -> Result<u64, TaskError> {
///     let mut total = 0;
///     let mut outputs = OutputStream::ordered((0..1000).map(|n| pool.submit(n)), 16);
///     // With `futures::StreamExt`, `outputs.next()`.
///     while let Some(output) = poll_fn(|cx| Pin::new(&mut outputs).poll_next(cx)).await {
///         total += output?;
///     }
///     Ok(total)
/// }
/// ```
#[must_use = "streams do nothing unless they are polled"]
pub struct OutputStream<I: Iterator> {
    futures: Option<I>,
    window: usize,
    order: OutputOrder,
    taken: u64,
    returned: u64,
    /// The futures in progress, by their index.
    in_progress: BTreeMap<u64, I::Item>,
    ready: Arc<ReadyQueue>,
}

/// The futures to be polled next: those that were woken, and new ones.
#[derive(Default)]
struct ReadyQueue(Mutex<ReadyState>);

#[derive(Default)]
struct ReadyState {
    /// Indices of futures.
    futures: VecDeque<u64>,
    /// The waker of the task that polls the stream.
    waker: Option<Waker>,
}

impl ReadyQueue {
    fn with<O>(&self, f: impl FnOnce(&mut ReadyState) -> O) -> O {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The waker of one future: puts it into the queue, and wakes the stream.
struct FutureWaker {
    future: u64,
    ready: Arc<ReadyQueue>,
}

impl Wake for FutureWaker {
    fn wake(self: Arc<Self>) {
        let waker = self.ready.with(|ready| {
            ready.futures.push_back(self.future);
            ready.waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<I: Iterator> std::fmt::Debug for OutputStream<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream")
            .field("order", &self.order)
            .field("taken", &self.taken)
            .field("returned", &self.returned)
            .finish_non_exhaustive()
    }
}

/// No field is pinned.
impl<I: Iterator> Unpin for OutputStream<I> {}

impl<I: Iterator<Item: Future + Unpin>> OutputStream<I> {
    /// Makes a stream that returns outputs in the order of the futures. Up to `window` futures (at least one) are in progress
    /// at a time.
    pub fn ordered(futures: I, window: usize) -> Self {
        Self::new(futures, window, OutputOrder::Ordered)
    }

    /// Makes a stream that returns outputs as they complete. Up to `window` futures (at least one) are in progress at a time.
    pub fn as_completed(futures: I, window: usize) -> Self {
        Self::new(futures, window, OutputOrder::AsCompleted)
    }

    fn new(futures: I, window: usize, order: OutputOrder) -> Self {
        Self {
            futures: Some(futures),
            window: window.max(1),
            order,
            taken: 0,
            returned: 0,
            in_progress: BTreeMap::new(),
            ready: Arc::default(),
        }
    }

    /// Takes futures from the iterator until the window is full.
    fn fill_window(&mut self) {
        while self.in_progress.len() < self.window {
            let Some(future) = self.futures.as_mut().and_then(Iterator::next) else {
                self.futures = None;
                return;
            };
            self.in_progress.insert(self.taken, future);
            if self.order == OutputOrder::AsCompleted {
                // A future wakes only after it was polled for the first time.
                self.ready.with(|ready| ready.futures.push_back(self.taken));
            }
            self.taken += 1;
        }
    }
}

impl<I: Iterator<Item: Future + Unpin>> Stream for OutputStream<I> {
    type Item = <I::Item as Future>::Output;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.fill_window();
        if self.in_progress.is_empty() {
            return Poll::Ready(None);
        }
        if self.order == OutputOrder::Ordered {
            let next = self.returned;
            let Some(future) = self.in_progress.get_mut(&next) else {
                return Poll::Ready(None);
            };
            let output = Pin::new(future).poll(context);
            if output.is_ready() {
                self.in_progress.remove(&next);
                self.returned += 1;
            }
            return output.map(Some);
        }
        // Registered before any future is polled, so that each wakeup from now on wakes the stream.
        let waker = context.waker().clone();
        // The previous waker is dropped outside of the lock, because that is user code.
        drop(self.ready.with(|ready| ready.waker.replace(waker)));
        while let Some(index) = self.ready.with(|ready| ready.futures.pop_front()) {
            let ready = self.ready.clone();
            // A future that was woken more than once may be finished already.
            let Some(future) = self.in_progress.get_mut(&index) else {
                continue;
            };
            let waker = Waker::from(Arc::new(FutureWaker { future: index, ready }));
            if let Poll::Ready(output) = Pin::new(future).poll(&mut Context::from_waker(&waker)) {
                self.in_progress.remove(&index);
                self.returned += 1;
                return Poll::Ready(Some(output));
            }
        }
        Poll::Pending
    }
}
