//! What the crate promises, through its public face.
#![cfg(not(loom))]

mod backings;
mod hostile;
mod images;
mod models;
mod rings;
mod tensors;
