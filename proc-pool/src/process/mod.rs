//! Worker processes, as the leader's process sees them. One thread, the [`manager`], starts, kills and reaps them for the
//! scheduler (see `leader`). The code that runs in the processes is in `worker`.

pub(crate) mod launch;
pub(crate) mod manager;
pub(crate) mod output_reader;
pub(crate) mod spawn;
#[cfg(all(feature = "stacks", target_os = "linux"))]
pub(crate) mod stack;
pub(crate) mod threads;
pub(crate) mod worker_hooks;
