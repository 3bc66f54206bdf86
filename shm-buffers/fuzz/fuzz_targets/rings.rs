//! Arbitrary operations on a ring, with a peer that writes arbitrary words.
#![no_main]

#[path = "../../tests/checks/rings.rs"]
mod rings;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rings::run(bytes));
