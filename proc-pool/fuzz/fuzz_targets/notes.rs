//! Any bytes from a worker, in any pieces, with descriptors attached or not.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proc_pool::fuzzing::notes(bytes));
