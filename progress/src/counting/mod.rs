//! The counting side: what writers count in atomic slots, possibly in shared memory, and what a bar sums.

pub(crate) mod bar;
pub(crate) mod counters;
pub(crate) mod counts;
pub(crate) mod handle;
mod one_writer;
pub(crate) mod remote;
pub(crate) mod sample;
mod shards;
mod shared;
pub(crate) mod slots;
pub(crate) mod source;
pub(crate) mod step;
pub(crate) mod total;
mod writers;
