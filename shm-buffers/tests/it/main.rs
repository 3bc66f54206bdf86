//! What the crate promises, through its public face.
#![cfg(not(loom))]

mod backings;
mod images;
mod models;
mod rings;
mod tensors;
