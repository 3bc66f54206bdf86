//! A value of a worker: random bytes as an output that is decoded with the default codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proc_pool::fuzzing::output(bytes));
