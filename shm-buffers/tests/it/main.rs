//! What the crate promises, through its public face.
#![cfg(not(loom))]

mod backings;
#[cfg(any(target_os = "linux", windows))]
mod children;
mod faults;
mod growing;
mod hostile;
mod images;
mod limits;
mod models;
mod rings;
mod scarcity;
mod tensors;
#[cfg(feature = "zstd")]
mod tool;
mod views;
mod windows;
