//! What the crate promises, through its public face.
#![cfg(not(loom))]

mod backings;
mod models;
mod rings;
