//! The worker's end of a connection: a leader sends random bytes as its greeting and handshake.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proc_pool::fuzzing::handshake(bytes));
