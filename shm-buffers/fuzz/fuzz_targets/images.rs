//! Arbitrary bytes as an image: plain, compressed, or a file of another program.
#![no_main]

#[path = "../../tests/checks/images.rs"]
mod images;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    images::use_unverified(bytes);
    let _ = images::load_verified(bytes);
});
