//! The facade with real processes, and the main job as its users run it.

mod batch_eval;
mod determinism;
mod executors;
#[cfg(target_os = "linux")]
mod forks;
mod handles;
mod interrupts;
mod logs;
mod models;
mod reports;
#[cfg(target_os = "linux")]
mod screen;
mod seeds;
mod states;
mod stdio;
#[cfg(feature = "stream")]
mod streams;
mod surroundings;
mod verify;

invoker::init_in_tests!();
