//! Integration tests of the public API.
#![cfg(not(loom))]

mod admission;
mod backings;
mod cgroups;
#[cfg(any(unix, windows))]
mod children;
mod dumps;
mod faults;
mod growing;
mod hostile;
mod images;
mod limits;
mod mapped;
mod models;
mod rings;
mod saving;
mod scarcity;
mod tensors;
#[cfg(feature = "zstd")]
mod tool;
mod views;
mod windows;
