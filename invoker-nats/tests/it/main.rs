//! Leaders and nodes with real servers and processes.

mod ops;
mod processes;
mod runs;
mod support;
#[path = "../../../proc-pool/tests/it/support/watchdog.rs"]
mod watchdog;

invoker::init_in_tests!();
