//! A marker of types that threads cannot share, with a compiler message that names the remedy.
#![allow(
    unsafe_code,
    reason = "only an implementation of `Sync` can have a message of its own"
)]

use std::marker::PhantomData;

/// Makes a type that contains it `!Sync`. The compiler's error is the message of [`SharedBetweenThreads`].
pub(super) type OneWriter = Marker<Never>;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marker<T>(PhantomData<T>);

/// It does not implement [`SharedBetweenThreads`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Never;

/// No type implements it.
#[diagnostic::on_unimplemented(
    message = "`Counters` have one writer, so threads cannot share them",
    label = "this shares `Counters` or a `Counter` between threads",
    note = "count on the bar itself, from any thread: `bar.inc(Outcome::Done)`",
    note = "or give each thread its own counters: `bar.counters()`, with rayon in `for_each_init(|| bar.counters(), ...)`"
)]
pub(super) trait SharedBetweenThreads {}

// SAFETY: a marker has no data, so a shared reference to it permits nothing. `Never` does not implement the trait, and
// no other marker is used, so the types that contain a marker are not `Sync`.
unsafe impl<T: SharedBetweenThreads> Sync for Marker<T> {}
