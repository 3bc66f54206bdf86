//! Both ends of the bridge together, in one process.

mod faithful;
mod flood;
mod global;
mod killed;
mod pump;
mod support;
