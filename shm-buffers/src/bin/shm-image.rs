//! `shm-image`: lists, verifies and converts model images.
fn main() {}
