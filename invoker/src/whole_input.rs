//! [`WholeInput`]: whether all of an input was taken, for runs whose result counts only as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proc_pool::{Fault, PoolError, TaskError};

/// Whether all items of an input were taken. An interrupted run stops before that.
#[derive(Debug, Clone, Default)]
pub(crate) struct WholeInput(Arc<AtomicBool>);

impl WholeInput {
    /// Watches an input.
    pub(crate) fn of<I: Iterator>(input: I) -> (Watched<I>, Self) {
        let whole = Self::default();
        let taken = whole.clone();
        let watched = Watched { input, taken };
        watched.look();
        (watched, whole)
    }

    /// Returns the error of task `next`, which was not taken, if there may be such a task.
    pub(crate) fn check(&self, next: u64) -> Result<(), TaskError> {
        match self.0.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(TaskError {
                task: next,
                fault: Fault::Pool(PoolError::Interrupted),
            }),
        }
    }
}

/// An iterator that records whether it has ended.
#[derive(Debug)]
pub(crate) struct Watched<I> {
    input: I,
    taken: WholeInput,
}

impl<I: Iterator> Watched<I> {
    /// Records the end of an input that knows it: it may not be asked for it.
    fn look(&self) {
        if self.input.size_hint().1 == Some(0) {
            self.taken.0.store(true, Ordering::Relaxed);
        }
    }
}

impl<I: Iterator> Iterator for Watched<I> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        let item = self.input.next();
        match item {
            None => self.taken.0.store(true, Ordering::Relaxed),
            Some(_) => self.look(),
        }
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.input.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_whole_once_its_end_is_known() {
        let (mut input, whole) = WholeInput::of(0..2);
        assert_eq!(input.next(), Some(0));
        let error = whole.check(1).expect_err("one is left");
        assert!(matches!(
            (error.task, error.fault),
            (1, Fault::Pool(PoolError::Interrupted))
        ));
        assert_eq!((input.size_hint(), input.next()), ((1, Some(1)), Some(1)));
        whole.check(2).expect("a range knows its end");
        WholeInput::of(0..0).1.check(0).expect("there are no items");

        let (mut input, whole) = WholeInput::of((0..2).filter(|n| *n == 0));
        assert_eq!(input.next(), Some(0));
        whole.check(1).expect_err("the end is unknown");
        assert_eq!(input.next(), None);
        whole.check(1).expect("it has ended");
    }
}
