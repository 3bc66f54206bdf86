//! [`Order`]: the order of outputs.

/// The order of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ordered,
    AsCompleted,
}
