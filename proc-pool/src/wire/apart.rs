//! Buffers that travel apart from the encoding of the task or the output that they belong to.

use std::cell::{Cell, RefCell};
use std::mem::needs_drop;

use shm_buffers::out_of_band::{Sent, collect};

use crate::error::BoxError;
use crate::panics::guarded;
use crate::wire::codec::Codec;
use crate::wire::pieces::MIN_APART;

/// Returns whether a `T` may have buffers: a buffer has an owner of its memory to drop.
#[inline]
pub(crate) const fn may_have_buffers<T>() -> bool {
    needs_drop::<T>()
}

/// Appends the encoding of `value`, and returns the large buffers that it leaves out. Without large buffers, the encoding is that of
/// [`Codec::encode`].
#[inline]
pub(crate) fn encode_apart<T, C: Codec<T>>(value: &T, into: &mut Vec<u8>) -> Result<Vec<Sent>, BoxError> {
    let start = into.len();
    let collected = collect(MIN_APART, || {
        into.truncate(start);
        C::encode(value, into)
    });
    collected.result?;
    Ok(collected.buffers)
}

thread_local! {
    /// Number of [`Locked`] of this thread.
    static LOCKS: Cell<usize> = const { Cell::new(0) };
    /// What this thread drops when it holds no lock any more.
    static DROPPED: RefCell<Vec<Vec<Sent>>> = const { RefCell::new(Vec::new()) };
}

/// Drops buffers as soon as this thread holds no lock of a scheduler: a buffer may have an owner whose drop is user code, or takes long.
pub(crate) fn drop_unlocked(buffers: Vec<Sent>) {
    match LOCKS.try_with(Cell::get) {
        Ok(1..) if !buffers.is_empty() => DROPPED.with_borrow_mut(|dropped| dropped.push(buffers)),
        _ => drop(buffers),
    }
}

/// While it exists, this thread holds the lock of a scheduler. Drop it when that is unlocked.
#[derive(Debug)]
pub(crate) struct Locked(());

impl Locked {
    #[inline]
    pub(crate) fn new() -> Self {
        LOCKS.set(LOCKS.get() + 1);
        Self(())
    }
}

impl Drop for Locked {
    #[inline]
    fn drop(&mut self) {
        let locks = LOCKS.get() - 1;
        LOCKS.set(locks);
        if locks == 0 && DROPPED.with_borrow(|dropped| !dropped.is_empty()) {
            drop_all();
        }
    }
}

#[cold]
fn drop_all() {
    for buffers in DROPPED.take() {
        // If a drop panics, that does not concern this thread.
        let _ = guarded(|| drop(buffers));
    }
}
