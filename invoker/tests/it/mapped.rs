//! Maps a file that the test made.
#![allow(unsafe_code)]

use std::path::Path;

use invoker::Image;

pub(crate) fn open(path: &Path) -> Image {
    // SAFETY: the tests replace or remove the file and touch its times; none writes to it or shortens it.
    unsafe { Image::open(path) }.expect("it was saved")
}
