//! Filling memory on all cores, and copying it while its source is given back.
//!
//! What takes the time is not the copy but the first touch of the target's pages: a fault each, and the system zeroes the
//! page that is overwritten at once. It scales with threads as long as they touch different parts. Writing through the
//! file that the memory belongs to saves both, which is about twice as fast, but one thread at a time: the file is
//! locked. So one thread writes and the others touch.

use std::sync::Mutex;
use std::thread;

use crate::os;

/// Below this many bytes a thread costs more than it does.
const PER_THREAD: usize = 1 << 20;
/// Bytes that a thread takes at a time, and keeps of a source until they are released. Large enough that taking and
/// releasing cost next to nothing.
const WINDOW: usize = 1 << 20;
/// Threads of one move, so that its windows stay small on machines with many cores.
const MOVERS: usize = 16;
/// Below this many bytes a system call costs more than it saves.
const WORTH_WRITING: usize = 64 << 10;

/// Gives `work` disjoint parts of `target`, each with the index of its first element, on as many threads as pay.
pub(crate) fn in_parallel<T: Send>(target: &mut [T], work: impl Fn(usize, &mut [T]) + Sync) {
    let threads = threads_for(size_of_val(target));
    let chunk = chunk_for(target.len(), threads, size_of::<T>());
    let parts = Mutex::new(target.chunks_mut(chunk).enumerate());
    let next = || parts.lock().ok().and_then(|mut parts| parts.next());
    with_helpers(threads - 1, || {
        while let Some((index, part)) = next() {
            work(index * chunk, part);
        }
    });
}

/// Copies `source` to `target` with as many threads as pay. `write` does the same for a part of it, given where that
/// starts, without touching `target`; it tells whether it could.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn copy(target: &mut [u8], source: &[u8], write: impl Fn(usize, &[u8]) -> bool + Sync) {
    assert_eq!(target.len(), source.len());
    let threads = threads_for(target.len());
    let windows = target.chunks_mut(WINDOW).zip(source.chunks(WINDOW));
    each(threads, windows, |how, start, (target, source)| {
        fill(how, start, target, source, &write);
    });
}

/// As [`copy`], and gives the source's pages back window by window. The source reads as anything afterwards.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn moving(target: &mut [u8], source: &mut [u8], write: impl Fn(usize, &[u8]) -> bool + Sync) {
    assert_eq!(target.len(), source.len());
    let threads = threads_for(target.len()).min(MOVERS);
    let windows = target.chunks_mut(WINDOW).zip(source.chunks_mut(WINDOW));
    each(threads, windows, |how, start, (target, source)| {
        fill(how, start, target, source, &write);
        os::release_pages(source);
    });
}

/// Bytes that a move of `len` bytes has in both places at most: a window for each thread, and its neighbour on the same
/// huge page, which comes back with it.
pub(crate) fn moving_window(len: usize) -> u64 {
    (2 * threads_for(len).min(MOVERS) * WINDOW) as u64
}

/// How a thread fills memory.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// Through the file.
    Write,
    /// Through the mapping.
    Touch,
}

fn fill(how: Fill, start: usize, target: &mut [u8], source: &[u8], write: impl Fn(usize, &[u8]) -> bool) {
    let written = how == Fill::Write && source.len() >= WORTH_WRITING && write(start, source);
    if !written {
        target.copy_from_slice(source);
    }
}

/// Gives every window, with where it starts, to one of `threads` threads: the caller's, which writes, and others.
fn each<W: Send>(
    threads: usize,
    windows: impl Iterator<Item = W> + Send,
    work: impl Fn(Fill, usize, W) + Sync,
) {
    let windows = Mutex::new(windows.enumerate());
    let next = || windows.lock().ok().and_then(|mut windows| windows.next());
    let run = |how| {
        while let Some((index, window)) = next() {
            work(how, index * WINDOW, window);
        }
    };
    let touch = || run(Fill::Touch);
    thread::scope(|scope| {
        helpers(scope, threads - 1, &touch);
        run(Fill::Write);
    });
}

/// Runs `work` in this thread and in `count` others.
fn with_helpers(count: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        helpers(scope, count, &work);
        work();
    });
}

/// Starts up to `count` threads that run `work`. Where a limit forbids more threads, there are fewer.
fn helpers<'scope>(scope: &'scope thread::Scope<'scope, '_>, count: usize, work: &'scope (impl Fn() + Sync)) {
    for _ in 0..count {
        if thread::Builder::new().spawn_scoped(scope, work).is_err() {
            return;
        }
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
            copy(&mut target, &source, |_, _| false);
            assert!(target == source);
            let expected = target.clone();
            target.fill(0);
            moving(&mut target, &mut source, |_, _| false);
            assert!(target == expected);
        }
    }

    #[test]
    fn what_is_written_is_not_touched() {
        let source: Vec<u8> = (0..3 * WINDOW + 70_000).map(|i| (i % 251) as u8).collect();
        let written = Mutex::new(vec![0; source.len()]);
        let mut touched = vec![0; source.len()];
        copy(&mut touched, &source, |start, part| {
            let mut written = written.lock().expect("not poisoned");
            written[start..start + part.len()].copy_from_slice(part);
            true
        });
        let written = written.into_inner().expect("not poisoned");
        let whole = written.iter().zip(&touched).map(|(a, b)| a | b);
        assert!(whole.eq(source.iter().copied()));
        let pairs = written.chunks(WINDOW).zip(touched.chunks(WINDOW));
        let twice = pairs.filter(|(a, b)| a.iter().any(|x| *x != 0) && b.iter().any(|x| *x != 0));
        assert_eq!(twice.count(), 0, "windows were written and touched");
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
