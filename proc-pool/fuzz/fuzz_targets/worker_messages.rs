//! The leader's end of a connection: a worker sends random bytes, in pieces, with and without descriptors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proc_pool::fuzzing::messages(bytes));
