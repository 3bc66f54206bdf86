//! The facade with real processes, and the example `batch_eval` from the command line.

#[cfg(target_os = "linux")]
mod bars;
mod batch_eval;
mod contexts;
mod copies;
mod determinism;
mod executors;
mod folds;
#[cfg(target_os = "linux")]
mod forks;
#[cfg(target_os = "linux")]
mod guide_of_progress;
mod handles;
mod interrupts;
mod journal;
#[cfg(target_os = "linux")]
mod limits;
mod logs;
mod mapped;
mod models;
mod process_options;
mod reports;
mod results;
#[cfg(target_os = "linux")]
mod screen;
mod seeds;
mod states;
mod stdio;
#[cfg(feature = "stream")]
mod streams;
mod task_buffers;
mod verify;
mod views;
#[path = "../../../proc-pool/tests/it/support/watchdog.rs"]
mod watchdog;

invoker::init_in_tests!();
