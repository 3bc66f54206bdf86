//! [`Order`]: the order of outputs.

/// The order of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The order of the tasks.
    Ordered,
    /// The order in which they complete.
    AsCompleted,
}
