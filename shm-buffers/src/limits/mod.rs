//! Limits of the system for this process: one reader of memory limits, for segments and for the crates above.
//!
//! - [`Cgroups`]: the control groups (cgroups) that enclose this process, in both versions, mounted anywhere.
//! - [`Cgroup::memory`]: the limit of one, and what it leaves.
//! - [`file_size`] and [`address_space`]: limits of the process (setrlimit(2)).
//! - [`SizeLimited`]: a writer that returns an error where the limit on file sizes would kill the process.
//!
//! [`Room`](crate::Room) sums them up. Every parser reads texts or files below a given root, so that any machine can be
//! imitated; a text that makes no sense counts as missing. Systems without cgroups have an empty list of them.

mod cgroup;
mod memory;
mod process;
mod writer;

pub use cgroup::{Cgroup, CgroupVersion, Cgroups, Controller};
pub use memory::CgroupMemory;
#[cfg(target_os = "linux")]
pub(crate) use memory::{Bound, MachineMemory, number};
pub use process::{AddressSpace, address_space, file_size};
pub use writer::{FileSizeError, SizeLimited};
