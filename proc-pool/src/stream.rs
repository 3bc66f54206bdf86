//! [`OutputStream`]: outputs for async programs.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;

use crate::map::Order;

/// The outputs of futures, [`Handle`](crate::Handle)s for example, of which a bounded number is under way at a time.
///
/// They are taken from an iterator that may be infinite, and that submits them: no more than there is room for, and only
/// while the stream is polled. No thread waits for it, and it needs no particular runtime. Dropping it drops the
/// futures under way; handles withdraw their tasks then.
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
    order: Order,
    taken: u64,
    given: u64,
    under_way: BTreeMap<u64, I::Item>,
    bells: Arc<Bells>,
}

/// What futures ring with that are ready.
#[derive(Default)]
struct Bells(Mutex<Rung>);

#[derive(Default)]
struct Rung {
    futures: VecDeque<u64>,
    /// Who polls the stream.
    waker: Option<Waker>,
}

impl Bells {
    fn with<O>(&self, use_it: impl FnOnce(&mut Rung) -> O) -> O {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One future's.
struct Bell {
    future: u64,
    bells: Arc<Bells>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let waker = self.bells.with(|rung| {
            rung.futures.push_back(self.future);
            rung.waker.take()
        });
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<I: Iterator> std::fmt::Debug for OutputStream<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream")
            .field("order", &self.order)
            .field("taken", &self.taken)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

/// Nothing in it is pinned.
impl<I: Iterator> Unpin for OutputStream<I> {}

impl<I: Iterator<Item: Future + Unpin>> OutputStream<I> {
    /// Gives outputs in the order of the futures, of which `window` (at least one) are under way.
    pub fn ordered(futures: I, window: usize) -> Self {
        Self::new(futures, window, Order::Ordered)
    }

    /// Gives outputs as they come, of `window` futures (at least one) at a time.
    pub fn as_completed(futures: I, window: usize) -> Self {
        Self::new(futures, window, Order::AsCompleted)
    }

    fn new(futures: I, window: usize, order: Order) -> Self {
        Self {
            futures: Some(futures),
            window: window.max(1),
            order,
            taken: 0,
            given: 0,
            under_way: BTreeMap::new(),
            bells: Arc::default(),
        }
    }

    fn take_in(&mut self) {
        while self.under_way.len() < self.window {
            let Some(future) = self.futures.as_mut().and_then(Iterator::next) else {
                self.futures = None;
                return;
            };
            self.under_way.insert(self.taken, future);
            if self.order == Order::AsCompleted {
                // Nobody rings for it before it was asked.
                self.bells.with(|rung| rung.futures.push_back(self.taken));
            }
            self.taken += 1;
        }
    }
}

impl<I: Iterator<Item: Future + Unpin>> Stream for OutputStream<I> {
    type Item = <I::Item as Future>::Output;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.take_in();
        if self.under_way.is_empty() {
            return Poll::Ready(None);
        }
        if self.order == Order::Ordered {
            let next = self.given;
            let Some(future) = self.under_way.get_mut(&next) else {
                return Poll::Ready(None);
            };
            let output = Pin::new(future).poll(context);
            if output.is_ready() {
                self.under_way.remove(&next);
                self.given += 1;
            }
            return output.map(Some);
        }
        // Before anything is asked: what rings from now on wakes us.
        let waker = context.waker().clone();
        // The one before is dropped after the lock is released: that is user code.
        drop(self.bells.with(|rung| rung.waker.replace(waker)));
        while let Some(future) = self.bells.with(|rung| rung.futures.pop_front()) {
            let bells = self.bells.clone();
            // It may have rung more than once.
            let Some(asked) = self.under_way.get_mut(&future) else {
                continue;
            };
            let waker = Waker::from(Arc::new(Bell { future, bells }));
            if let Poll::Ready(output) = Pin::new(asked).poll(&mut Context::from_waker(&waker)) {
                self.under_way.remove(&future);
                self.given += 1;
                return Poll::Ready(Some(output));
            }
        }
        Poll::Pending
    }
}
