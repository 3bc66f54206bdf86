//! What a pool promises, with real processes: this test binary is its own worker, and where a whole process is at
//! stake, its own leader as well.
//!
//! Those that look at processes from outside (their files, signals, control groups) are Linux's; `windows` has that
//! system's counterparts.
//!
//! Tests wait for events (a pipe, a socket, a process's end); the only clocks are watchdogs.

mod basics;
mod codecs;
#[cfg_attr(not(target_os = "linux"), path = "crash/elsewhere.rs")]
mod crash;
#[cfg(target_os = "linux")]
mod deaths;
#[cfg(target_os = "linux")]
mod environment;
mod handles;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(target_os = "linux")]
mod idle;
mod inputs;
#[cfg(target_os = "linux")]
mod interrupts;
#[cfg(target_os = "linux")]
mod leaders;
mod lifecycles;
mod limits;
mod local;
#[cfg(target_os = "linux")]
mod matrix;
#[cfg(target_os = "linux")]
mod model;
mod observers;
mod origins;
mod payloads;
#[cfg(target_os = "linux")]
mod printed;
#[cfg(target_os = "linux")]
mod programs;
mod recycling;
mod resizing;
#[cfg(target_os = "linux")]
mod scarcity;
#[cfg(target_os = "linux")]
mod signals;
#[cfg(target_os = "linux")]
mod snapshots;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(all(feature = "stacks", target_os = "linux"))]
mod stacks;
#[cfg(target_os = "linux")]
mod starts;
#[cfg(target_os = "linux")]
mod stops;
#[cfg_attr(not(target_os = "linux"), path = "support/elsewhere.rs")]
mod support;
#[cfg(target_os = "linux")]
mod surroundings;
#[cfg(target_os = "linux")]
mod suspects;
#[cfg(target_os = "linux")]
mod sweeps;
mod timing;
#[cfg(target_os = "linux")]
mod trip;
#[cfg(windows)]
mod windows;

proc_pool::init_in_tests!();
