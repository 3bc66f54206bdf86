//! Filling memory on all cores, and copying it while its source is given back.
//!
//! What takes the time is not the copy but the first touch of the target's pages, which the system zeroes one by one: it
//! scales with threads as long as they touch different parts.

use std::thread;

use crate::os;

/// Below this many bytes a thread costs more than it does.
const PER_THREAD: usize = 1 << 20;
/// How much of a source each thread keeps until it is released: a `share_move` needs the model's size plus this for
/// each core. Large enough that releasing costs next to nothing.
const WINDOW: usize = 1 << 20;

/// Gives `work` disjoint parts of `target`, each with the index of its first element, on as many threads as pay.
pub(crate) fn in_parallel<T: Send>(target: &mut [T], work: impl Fn(usize, &mut [T]) + Sync) {
    let threads = threads_for(size_of_val(target));
    let chunk = chunk_for(target.len(), threads, size_of::<T>());
    let work = &work;
    thread::scope(|scope| {
        let mut parts = target.chunks_mut(chunk).enumerate();
        let mine = parts.next();
        for (index, part) in parts {
            scope.spawn(move || work(index * chunk, part));
        }
        if let Some((_, part)) = mine {
            work(0, part);
        }
    });
}

/// Copies `source` to `target` with as many threads as pay.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn parallel(target: &mut [u8], source: &[u8]) {
    assert_eq!(target.len(), source.len());
    in_parallel(target, |start, part| {
        part.copy_from_slice(&source[start..start + part.len()]);
    });
}

/// Copies `source` to `target` with as many threads as pay, and gives the source's pages back window by window. The
/// source reads as anything afterwards.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn moving(target: &mut [u8], source: &mut [u8]) {
    assert_eq!(target.len(), source.len());
    let threads = threads_for(target.len());
    let chunk = chunk_for(target.len(), threads, 1);
    thread::scope(|scope| {
        let mut pairs = target.chunks_mut(chunk).zip(source.chunks_mut(chunk));
        let mine = pairs.next();
        for (target, source) in pairs {
            scope.spawn(move || move_windows(target, source));
        }
        if let Some((target, source)) = mine {
            move_windows(target, source);
        }
    });
}

fn move_windows(target: &mut [u8], source: &mut [u8]) {
    for (target, source) in target.chunks_mut(WINDOW).zip(source.chunks_mut(WINDOW)) {
        target.copy_from_slice(source);
        os::release_pages(source);
    }
}

fn threads_for(bytes: usize) -> usize {
    // Asking for the cores reads files of the system; what one thread does in less time is not worth it.
    match bytes / PER_THREAD {
        0 | 1 => 1,
        worth => worth.min(thread::available_parallelism().map_or(1, usize::from)),
    }
}

/// Elements for each of `threads`, so that no two write one page (but for elements that no page holds whole).
fn chunk_for(len: usize, threads: usize, size: usize) -> usize {
    let whole = (4096 / size.max(1)).max(1);
    len.div_ceil(threads).next_multiple_of(whole).max(1)
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

    #[test]
    fn every_index_is_met_once() {
        for len in [0, 1, 511, 512, 513, (3 << 20) / 8 + 5] {
            let mut target = vec![0_u64; len];
            in_parallel(&mut target, |start, part| {
                for (index, slot) in (start..).zip(part) {
                    *slot += index as u64 + 1;
                }
            });
            assert!(target.iter().enumerate().all(|(index, n)| *n == index as u64 + 1));
        }
    }
}
