//! Both ends of the bridge together.

mod bridge_events;
mod events;
mod filter_updates;
mod filters;
mod flood;
mod global;
mod handle;
mod handles;
mod killed;
mod layers;
mod lines;
mod notices;
mod overflow;
mod subscribers;
mod support;
mod threads;
