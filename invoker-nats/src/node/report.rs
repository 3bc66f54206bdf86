//! [`NodeReport`] of a node.

use std::fmt;

use cluster_run::ServeEnd;
use invoker::Report;

/// The counts of a node. `Display` prints it, with the report of its invoker.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NodeReport {
    /// Why it has ended.
    pub end: ServeEnd,
    /// Number of batches that it has run, in whole or in part.
    pub batches: u64,
    /// The report of its invoker.
    pub report: Report,
}

impl fmt::Display for NodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, batches, report } = self;
        write!(f, "node      {batches} batches; {end}\n{report}")
    }
}
