//! What a pool promises, with real processes: this test binary is its own worker, and where a whole process is at
//! stake, its own leader as well.
//!
//! Tests wait for events (a pipe, a socket, a process's end); the only clocks are watchdogs.

mod basics;
mod codecs;
mod crash;
mod deaths;
mod environment;
mod handles;
mod hostile;
mod idle;
mod inputs;
mod interrupts;
mod leaders;
mod lifecycles;
mod limits;
mod local;
mod matrix;
mod model;
mod observers;
mod origins;
mod payloads;
mod printed;
mod programs;
mod recycling;
mod resizing;
mod scarcity;
mod signals;
mod snapshots;
mod soak;
#[cfg(all(feature = "stacks", target_os = "linux"))]
mod stacks;
mod starts;
mod stops;
mod support;
mod surroundings;
mod suspects;
mod sweeps;
mod timing;
mod trip;

proc_pool::init_in_tests!();
