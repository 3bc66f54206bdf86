//! [`TryNext`]: the next output of a map without waiting, and waiting with a timeout.

use std::time::{Duration, Instant};

use super::Map;
use crate::error::TaskError;

/// What [`Map::try_next`] has found.
#[derive(Debug)]
pub enum TryNext<R> {
    /// The next output, or the error of its task.
    Output(Result<R, TaskError>),
    /// No output is available yet.
    Pending,
    /// There are no more outputs.
    End,
}

impl<I: Iterator, R> Map<'_, I, R> {
    /// Returns the next output if it is available, and submits tasks for which workers have room. It waits for nothing but the input.
    ///
    /// With [`wait`](Self::wait), it is for callers that must do something else between waits, such as to react to signals:
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # proc_pool::init();
    /// use std::time::Duration;
    /// use proc_pool::TryNext;
    ///
    /// let pool = proc_pool::Builder::new().build_op(|n: u64| n * n)?;
    /// let mut squares = pool.map(0..100);
    /// loop {
    ///     match squares.try_next() {
    ///         TryNext::Output(square) => println!("{}", square?),
    ///         TryNext::Pending => {
    ///             if !squares.wait(Duration::from_secs(1)) {
    ///                 println!("still waiting");
    ///             }
    ///         }
    ///         TryNext::End => break,
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn try_next(&mut self) -> TryNext<R> {
        match self.take_decoded_one() {
            Some(output) => TryNext::Output(Ok(output)),
            None => self.try_next_undecoded(),
        }
    }

    /// Returns the next output if it is decoded.
    #[inline]
    pub(super) fn take_decoded_one(&mut self) -> Option<R> {
        if !self.event_loop.is_here() {
            return None;
        }
        let output = self.next_decoded()?;
        // A run of an ordered map that was decoded before may be longer than the credit.
        self.credit = self.credit.saturating_sub(1);
        Some(output)
    }

    /// Does the same as [`try_next`](Self::try_next), if no output is decoded.
    pub(super) fn try_next_undecoded(&mut self) -> TryNext<R> {
        if !self.event_loop.is_here() {
            return self.fail_forked().map_or(TryNext::End, TryNext::Output);
        }
        if self.credit > 0
            && let Some(result) = self.next_ready()
        {
            self.credit -= 1;
            return TryNext::Output(result);
        }
        self.renew_credit();
        if !self.event_loop.is_here() {
            return self.fail_forked().map_or(TryNext::End, TryNext::Output);
        }
        match self.next_ready() {
            Some(result) => {
                self.credit -= 1;
                TryNext::Output(result)
            }
            None if self.input.is_none() && self.returned == self.next => TryNext::End,
            None => TryNext::Pending,
        }
    }

    /// Waits, for at most `timeout`, until [`try_next`](Self::try_next) may find an output or room for a task, after it has returned
    /// [`TryNext::Pending`]. Returns whether that is so. It neither takes tasks from the input nor decodes outputs.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        !self.event_loop.is_here() || self.wait_until(Instant::now().checked_add(timeout))
    }

    pub(super) fn wait_until(&mut self, deadline: Option<Instant>) -> bool {
        let wants = !self.batch.is_empty() || self.input_budget() > 0;
        let takes = self.input.is_some();
        let (job, returned_all) = (self.job, self.returned == self.next);
        if !takes && returned_all {
            return true;
        }
        let waited = self.event_loop.wait(deadline, |scheduler| {
            let done = scheduler.jobs.get(job).is_none_or(|job| !job.done.is_empty());
            let interrupted = takes && scheduler.interrupted().is_some();
            (done || interrupted || (wants && scheduler.room() > 0)).then_some(())
        });
        waited.is_some()
    }
}
