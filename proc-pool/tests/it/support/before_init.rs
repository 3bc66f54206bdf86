//! What this test binary does before `init` and before its tests, when it has been started as a worker.
#![allow(unsafe_code, reason = "runs before `main`")]

use super::is_worker_before_init;

/// Exit with this code.
pub(crate) const EXIT: &str = "IT_EXIT_BEFORE_INIT";
/// Be unable to start threads.
pub(crate) const NO_THREADS: &str = "IT_NO_THREADS";
/// Report the pid and stop.
pub(crate) const STOP: &str = "IT_STOP_BEFORE_INIT";

#[used]
#[unsafe(link_section = ".init_array.00200")]
static BEFORE_INIT: extern "C" fn() = before_init;

/// Runs before everything else, even before `init`.
extern "C" fn before_init() {
    if !is_worker_before_init() {
        return;
    }
    if let Ok(code) = std::env::var(EXIT) {
        super::exit_immediately(code.parse().unwrap_or(99));
    }
    if std::env::var_os(NO_THREADS).is_some() {
        super::fault_injection::no_more_threads();
    }
    crate::fault_matrix::before_init();
    crate::hostile::before_init();
    if std::env::var_os(STOP).is_some() {
        crate::leader_deaths::stop_before_init();
    }
}
