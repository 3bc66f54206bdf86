//! Any bytes from a leader, as a greeting and an introduction.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proc_pool::fuzzing::introduction(bytes));
