//! [`BesideModel`]: a state that borrows from a model, stored beside a share of that model.
#![allow(
    unsafe_code,
    reason = "safe code cannot store a value beside another one that borrows from it"
)]

use std::mem::MaybeUninit;
use std::sync::Arc;

use proc_pool::{BoxError, Family};

/// A model and a state that borrows from it.
///
/// Invariant: `state` is initialized, and borrows from nothing but the model that `model` keeps alive and `'static` data. Its
/// lifetime parameter is a pretence: only [`with`](Self::with) and the drop use it, while `model` exists.
pub(crate) struct BesideModel<M, V: Family> {
    /// `MaybeUninit`, so that a move of the struct does not claim that the references in the state are valid for as long as the
    /// receiving function runs: that function may drop the model.
    state: MaybeUninit<V::Of<'static>>,
    model: Arc<M>,
}

impl<M: 'static, V: Family> BesideModel<M, V> {
    /// Makes a state with `make`, which works for any lifetime, so that it can neither keep the reference nor use one that is
    /// shorter.
    pub(crate) fn new(
        model: Arc<M>,
        make: impl for<'m> FnOnce(&'m M) -> Result<V::Of<'m>, BoxError>,
    ) -> Result<Self, BoxError> {
        // SAFETY: the pointer is that of an `Arc`'s value: aligned, not null, initialized, and at this address until the last
        // share is dropped. The value is only borrowed shared: `Arc::get_mut` needs the only share, and this struct keeps its own
        // until the state has been dropped (if `make` fails, nothing remains of the state). The lifetime is longer than that.
        // `make` cannot depend on it, because it must accept any; neither can its error, whose type has no lifetime of the model.
        let borrowed: &'static M = unsafe { &*Arc::as_ptr(&model) };
        let state = MaybeUninit::new(make(borrowed)?);
        Ok(Self { state, model })
    }

    /// Calls `f` with the model and the state. `f` works for any lifetime, so that neither can leave it.
    #[inline]
    pub(crate) fn with<R>(&mut self, f: impl for<'m, 'v> FnOnce(&'m M, &'v mut V::Of<'m>) -> R) -> R {
        // SAFETY: as in `new`; `self` is borrowed until `f` returns, so the share exists for as long as the reference is used.
        let model: &'static M = unsafe { &*Arc::as_ptr(&self.model) };
        // SAFETY: the state is initialized, by the invariant of the struct.
        let state = unsafe { self.state.assume_init_mut() };
        f(model, state)
    }
}

impl<M, V: Family> Drop for BesideModel<M, V> {
    fn drop(&mut self) {
        // SAFETY: the state is initialized, by the invariant, and nothing uses it after this: the fields are dropped next, which
        // does nothing for a `MaybeUninit`. What it borrows from still exists: `model` is dropped after this function, also if the
        // state's drop panics.
        unsafe { self.state.assume_init_drop() };
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Reads the model when it is dropped.
    struct Reads<'m> {
        text: &'m String,
        log: Arc<std::sync::Mutex<Vec<String>>>,
    }

    impl Drop for Reads<'_> {
        fn drop(&mut self) {
            let mut log = self.log.lock().expect("not poisoned");
            log.push(self.text.clone());
            drop(log);
            assert_ne!(self.text, "panic");
        }
    }

    struct ReadsFamily;

    impl Family for ReadsFamily {
        type Of<'m> = Reads<'m>;
    }

    type Cell = BesideModel<String, ReadsFamily>;

    fn cell(text: &str) -> (Cell, std::sync::Weak<String>, Arc<std::sync::Mutex<Vec<String>>>) {
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        let model = Arc::new(text.to_owned());
        let weak = Arc::downgrade(&model);
        let of_state = log.clone();
        let cell = Cell::new(model, move |text| Ok(Reads { text, log: of_state }));
        (cell.expect("it is made"), weak, log)
    }

    #[test]
    fn the_state_is_dropped_before_its_model_and_nothing_leaks() {
        let (cell, model, log) = cell("end");
        let mut moved = Box::new(cell);
        assert_eq!(moved.with(|model, state| (model.len(), state.text.len())), (3, 3));
        // The new state replaces the old one, which is dropped.
        moved.with(|model, state| {
            let log = state.log.clone();
            *state = Reads { text: model, log };
        });
        drop(moved);
        assert_eq!(*log.lock().expect("not poisoned"), ["end", "end"]);
        assert_eq!(model.strong_count(), 0);
    }

    #[test]
    fn a_panic_of_the_drop_frees_the_model() {
        let (cell, model, log) = cell("panic");
        catch_unwind(AssertUnwindSafe(|| drop(cell))).expect_err("the drop panics");
        assert_eq!(
            (log.lock().expect("not poisoned").len(), model.strong_count()),
            (1, 0)
        );
    }

    #[test]
    fn a_failed_or_panicking_start_frees_the_model() {
        let model = Arc::new(String::new());
        let made = Cell::new(model.clone(), |_| Err("invalid".into())).map(drop);
        assert_eq!(made.expect_err("it fails").to_string(), "invalid");
        let panics = || Cell::new(model.clone(), |_| panic!("no view")).map(drop);
        catch_unwind(AssertUnwindSafe(panics)).expect_err("it panics");
        assert_eq!(Arc::strong_count(&model), 1);
    }
}
