//! Leaders and nodes with real servers and processes.
#![cfg_attr(
    not(unix),
    allow(
        dead_code,
        unused_imports,
        reason = "tests that stop and kill processes need Unix"
    )
)]

#[cfg(unix)]
mod faults;
mod hostile;
mod main_job;
mod ops;
mod payloads;
mod processes;
mod runs;
mod support;
#[path = "../../../proc-pool/tests/it/support/watchdog.rs"]
mod watchdog;

invoker::init_in_tests!();
