//! What a pool promises, with real processes: this test binary is its own worker.

mod basics;

proc_pool::init_in_tests!();
