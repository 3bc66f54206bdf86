//! [`Interrupt`]: how a pool is interrupted.

#[cfg(doc)]
use crate::error::PoolError;

/// How a pool is interrupted. Each level includes the ones before it, and a pool never returns to a lower level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Interrupt {
    /// Maps take no more tasks from their inputs. They end when the tasks that they took are finished.
    Finish,
    /// As `Finish`, and tasks that no worker has started fail with [`PoolError::Interrupted`].
    Cancel,
    /// As `Cancel`, and the workers are killed. Tasks in progress fail with [`PoolError::Interrupted`], too.
    Kill,
}
