//! The facade with real processes, and the main job as its users run it.

mod batch_eval;
mod executors;
#[cfg(target_os = "linux")]
mod screen;

invoker::init_in_tests!();
