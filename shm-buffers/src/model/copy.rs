//! Copying buffers into a segment: in parallel, and releasing the source on the way.

use std::thread;

use crate::os;

/// Below this many bytes a thread costs more than it copies.
const PER_THREAD: usize = 4 << 20;
/// How much of a source is kept until it is released: a share_move needs the model's size plus this.
const WINDOW: usize = 32 << 20;

/// Copies `source` to `target` with as many threads as pay.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn parallel(target: &mut [u8], source: &[u8]) {
    assert_eq!(target.len(), source.len());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = (source.len() / PER_THREAD).clamp(1, cores);
    let chunk = source.len().div_ceil(threads).next_multiple_of(4096).max(1);
    thread::scope(|scope| {
        let mut pairs = target.chunks_mut(chunk).zip(source.chunks(chunk));
        let mine = pairs.next();
        for (target, source) in pairs {
            scope.spawn(move || target.copy_from_slice(source));
        }
        if let Some((target, source)) = mine {
            target.copy_from_slice(source);
        }
    });
}

/// Copies `source` to `target` and gives the source's pages back window by window. The source reads as
/// anything afterwards.
pub(crate) fn moving(target: &mut [u8], source: &mut [u8]) {
    for (target, source) in target.chunks_mut(WINDOW).zip(source.chunks_mut(WINDOW)) {
        parallel(target, source);
        os::release_pages(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_whole_and_odd_sizes() {
        for len in [0, 1, 4095, 3 * PER_THREAD + 7] {
            let mut source: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let mut target = vec![0; len];
            parallel(&mut target, &source);
            assert!(target == source);
            let expected = target.clone();
            target.fill(0);
            moving(&mut target, &mut source);
            assert!(target == expected);
        }
    }
}
