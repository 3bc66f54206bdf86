//! Maps a file that a test has written.
#![allow(unsafe_code, reason = "maps a file that the test wrote")]

use std::path::Path;

use invoker::Image;

pub(crate) fn open(path: &Path) -> Image {
    // SAFETY: tests replace or remove the file and change its times, but no test writes to it or shortens it.
    unsafe { Image::open(path) }.expect("a saved file")
}
