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
mod logs;
mod main_job;
#[cfg(target_os = "linux")]
mod memory;
mod model_store;
mod ops;
#[cfg(target_os = "linux")]
mod partition;
mod payloads;
mod processes;
mod runs;
#[cfg(unix)]
mod security;
mod support;
#[path = "../../../proc-pool/tests/it/support/watchdog.rs"]
mod watchdog;

invoker::init_in_tests!();
