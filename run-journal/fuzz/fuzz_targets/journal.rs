//! Arbitrary bytes as a journal, and as the payloads of its blocks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| run_journal::fuzzing::journal(bytes));
