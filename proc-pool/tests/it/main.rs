//! What a pool promises, with real processes: this test binary is its own worker, and where a whole process is at
//! stake, its own leader as well.
//!
//! Those that look at processes from outside (their files, signals, control groups) are Linux's; `windows` and `consoles`
//! have that system's counterparts.
//!
//! Tests wait for events (a pipe, a socket, a process's end); the only clocks are watchdogs.

mod basics;
mod codecs;
#[cfg(windows)]
mod consoles;
#[cfg_attr(not(target_os = "linux"), path = "crash/elsewhere.rs")]
mod crash;
mod deaths;
#[cfg(target_os = "linux")]
mod environment;
#[cfg(target_os = "linux")]
mod forgeries;
#[cfg(target_os = "linux")]
mod forks;
mod guards;
mod handles;
#[cfg(target_os = "linux")]
mod hostile;
mod idle;
mod inputs;
mod interrupts;
#[cfg(target_os = "linux")]
mod introductions;
mod last_panics;
mod leaders;
mod lifecycles;
mod limits;
mod local;
#[cfg(target_os = "linux")]
mod matrix;
mod model;
mod observers;
#[cfg(target_os = "linux")]
mod offspring;
mod origins;
mod payloads;
mod printed;
mod programs;
mod recycling;
mod resizing;
#[cfg(target_os = "linux")]
mod scarcity;
#[cfg(target_os = "linux")]
mod signals;
mod snapshots;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(all(feature = "stacks", target_os = "linux"))]
mod stacks;
mod starts;
#[cfg(target_os = "linux")]
mod stops;
#[cfg_attr(not(target_os = "linux"), path = "support/elsewhere.rs")]
mod support;
mod surroundings;
mod suspects;
mod timing;
#[cfg(target_os = "linux")]
mod trip;
#[cfg(windows)]
mod windows;
mod withdrawal;

proc_pool::init_in_tests!();
