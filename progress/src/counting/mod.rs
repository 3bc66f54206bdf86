//! The counting side: what writers count in atomic slots, possibly in shared memory, and what a bar sums.

pub(crate) mod bar;
pub(crate) mod counters;
pub(crate) mod counts;
pub(crate) mod sample;
pub(crate) mod slots;
pub(crate) mod step;
pub(crate) mod total;
