//! Tests of pools with real processes: this test binary is its own worker, and in isolated tests its own leader as well.
//!
//! Tests that observe processes from outside (their files, signals, cgroups) need Linux; `windows` and `console_events`
//! are their counterparts for Windows. `tests/README.md` is the map of the modules.
//!
//! Tests wait for events: a message, a socket, a process's end. Watchdogs are the only clocks.

mod basics;
mod buffers;
mod callbacks;
#[cfg(target_os = "linux")]
mod child_processes;
mod codecs;
#[cfg(windows)]
mod console_events;
mod deadlines;
mod environment;
#[cfg(target_os = "linux")]
mod executables;
#[cfg(target_os = "linux")]
mod fault_matrix;
#[cfg(target_os = "linux")]
mod forks;
mod handles;
#[cfg(target_os = "linux")]
mod handshake;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(target_os = "linux")]
mod idle;
#[cfg(target_os = "linux")]
mod idle_memory;
#[cfg(target_os = "linux")]
mod inheritance;
mod inputs;
mod interrupts;
#[cfg(target_os = "linux")]
mod leader_conditions;
mod leader_deaths;
mod lifecycle;
mod observers;
mod ops;
mod output_capture;
mod owned_maps;
mod panics;
mod payloads;
mod random_operations;
mod recycling;
mod resizing;
#[cfg(target_os = "linux")]
mod resource_limits;
mod retries;
#[cfg(target_os = "linux")]
mod signals;
mod snapshots;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(all(feature = "stacks", target_os = "linux"))]
mod stacks;
mod support;
#[cfg(target_os = "linux")]
mod suspension;
mod task_buffers;
#[cfg(target_os = "linux")]
mod temporary_files;
mod timing;
#[cfg(windows)]
mod windows;
mod with_inputs;
mod withdrawal;
mod worker_deaths;
mod worker_programs;
mod worker_start;
mod worker_values;

proc_pool::init_in_tests!();
