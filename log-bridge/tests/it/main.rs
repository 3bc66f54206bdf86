//! Both ends of the bridge together.

mod changes;
mod faithful;
mod filters;
mod flood;
mod global;
mod kept;
mod killed;
mod lines;
mod own_voice;
mod policy;
mod pump;
#[cfg(feature = "setup")]
mod setup;
mod subscribers;
mod support;
mod threads;
