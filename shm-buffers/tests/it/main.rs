//! Integration tests of the public API.
#![cfg(not(loom))]

mod backings;
#[cfg(any(unix, windows))]
#[cfg_attr(
    not(feature = "models"),
    allow(dead_code, reason = "tests of models use the rest")
)]
mod children;
mod handles;
#[cfg(any(feature = "named", not(target_os = "linux")))]
mod orphans;
mod rings;

#[cfg(feature = "models")]
mod admission;
#[cfg(feature = "models")]
mod cgroups;
#[cfg(feature = "models")]
mod collections;
#[cfg(feature = "models")]
mod copy_on_write;
#[cfg(feature = "models")]
mod drop_in;
#[cfg(feature = "models")]
mod dumps;
#[cfg(feature = "models")]
mod faults;
#[cfg(feature = "models")]
mod growing;
#[cfg(feature = "models")]
mod handing_on;
#[cfg(feature = "models")]
mod hostile;
#[cfg(feature = "models")]
mod images;
#[cfg(feature = "models")]
mod limits;
#[cfg(feature = "models")]
mod many;
#[cfg(feature = "models")]
mod mapped;
#[cfg(feature = "models")]
mod models;
#[cfg(feature = "models")]
mod out_of_band;
#[cfg(feature = "models")]
mod rebuilt;
#[cfg(feature = "models")]
mod saving;
#[cfg(feature = "models")]
mod scarcity;
#[cfg(feature = "models")]
mod tensors;
#[cfg(feature = "zstd")]
mod tool;
#[cfg(feature = "models")]
mod views;
#[cfg(feature = "models")]
mod windows;
