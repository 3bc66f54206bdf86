//! The system's limits for this process: the one parser of cgroups and process limits in the workspace.
//!
//! - [`Cgroups`]: the cgroups (control groups) that enclose this process, of both versions, mounted anywhere.
//! - [`Cgroup::memory`], [`Cgroup::cpu_quota`] and [`Cgroup::oom_kills`]: the memory and processor time that a cgroup allows,
//!   and the processes that it lost.
//! - [`max_file_size`] and [`address_space`]: limits of the process (setrlimit(2)).
//! - [`SizeLimited`]: a writer that returns an error where the limit on file sizes would kill the process.
//!
//! [`MemoryInfo`](crate::MemoryInfo) summarizes them. Each parser reads a text, or files below a given root directory, so that
//! tests can imitate any machine. Invalid text counts as missing. Systems without cgroups have an empty list of them.

mod cgroup;
mod cpu;
mod memory;
mod oom;
mod process;
mod writer;

pub use cgroup::{Cgroup, CgroupVersion, Cgroups, Controller};
pub use memory::CgroupMemory;
#[doc(hidden)]
pub use memory::kib_field;
#[cfg(target_os = "linux")]
pub(crate) use memory::{MachineMemory, MemoryLimit, number};
pub use oom::machine_oom_kills;
pub use process::{AddressSpace, address_space, max_file_size};
pub use writer::{FileSizeError, SizeLimited};
