//! Both ends of the bridge together.

mod changes;
mod faithful;
mod filters;
mod flood;
mod global;
mod killed;
mod lines;
mod policy;
mod pump;
#[cfg(feature = "setup")]
mod setup;
mod support;
mod threads;
