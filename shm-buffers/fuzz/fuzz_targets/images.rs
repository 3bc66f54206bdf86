//! Any bytes as an image: plain, compressed, of others.
#![no_main]

#[path = "../../tests/checks/images.rs"]
mod images;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    images::used(bytes);
    let _ = images::trusted(bytes);
});
