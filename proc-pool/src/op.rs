//! Ops: plain functions and closures that capture nothing.
//!
//! Such a function is a type without data: knowing the type is having the function. So it need not be sent to a
//! worker; the worker's code, compiled for that type, makes it from nothing.
#![allow(unsafe_code)]

/// A value of a type without data, in another process than the one that gave it.
///
/// An `F` that captures something does not compile.
pub(crate) fn conjure<F: Copy + 'static>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "an op must be a plain `fn` or a closure that captures nothing: what it captured would stay behind"
        );
    }
    // SAFETY: `F` has no bytes (checked at compile time), so reading it reads nothing, and a dangling aligned
    // pointer is valid for that. That a value of `F` may exist is shown by the leader, which was given one: the
    // only caller is the private `Typed`, whose entry point only `Builder::build` hands out, and that takes an `F`
    // by value. In a worker program of its own it is shown by the program itself: `Registry` takes an `F` by value,
    // too. `Copy` says that it may exist any number of times.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}
