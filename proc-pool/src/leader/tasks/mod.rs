//! Tasks in the leader: encoded ([`batch`]), at a worker ([`in_flight`]), finished ([`jobs`]), decoded ([`decode`]).
//! [`window`] decides how many of them a worker has at a time.

pub(crate) mod batch;
pub(crate) mod decode;
pub(crate) mod in_flight;
pub(crate) mod jobs;
pub(crate) mod window;
