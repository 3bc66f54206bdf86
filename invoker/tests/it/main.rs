//! The facade with real processes, and the main job as its users run it.

#[cfg(target_os = "linux")]
mod bars;
mod batch_eval;
mod determinism;
mod executors;
#[cfg(target_os = "linux")]
mod forks;
#[cfg(target_os = "linux")]
mod guide_of_progress;
mod handles;
mod interrupts;
#[cfg(target_os = "linux")]
mod limits;
mod logs;
mod mapped;
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
mod watchdog;

invoker::init_in_tests!();
