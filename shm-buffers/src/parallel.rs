//! Runs pieces of work on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Returns the number of cores that this process may use, at most one for each of `pieces`, and 1 at least.
pub(crate) fn threads(pieces: usize) -> usize {
    match pieces {
        // Asking for the cores reads files of the system.
        0 | 1 => 1,
        _ => pieces.min(thread::available_parallelism().map_or(1, usize::from)),
    }
}

/// Calls `run` with each piece of `work`, in any order, on up to `threads` threads.
pub(crate) fn for_each<T: Send>(
    threads: usize,
    work: impl Iterator<Item = T> + Send,
    run: impl Fn(T) + Sync,
) {
    let done: Result<(), std::convert::Infallible> = try_for_each_with(
        threads,
        work,
        |_| Ok(()),
        |(), piece| {
            run(piece);
            Ok(())
        },
    );
    let Ok(()) = done;
}

/// Calls `run` with each piece of `work`, in any order, on up to `threads` threads, and stops at the first error.
///
/// Each thread first creates its state with `init`, from the thread's number; the caller's thread is number 0. If a limit
/// forbids more threads, fewer do the work.
pub(crate) fn try_for_each_with<T: Send, S, E: Send>(
    threads: usize,
    work: impl Iterator<Item = T> + Send,
    init: impl Fn(usize) -> Result<S, E> + Sync,
    run: impl Fn(&mut S, T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let work = Mutex::new(work);
    let stopped = AtomicBool::new(false);
    let next = || match stopped.load(Ordering::Relaxed) {
        true => None,
        false => work.lock().ok()?.next(),
    };
    let run_thread = |number| {
        let mut state = init(number)?;
        while let Some(piece) = next() {
            run(&mut state, piece).inspect_err(|_| stopped.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    let run_thread = &run_thread;
    thread::scope(|scope| {
        let spawn = |number| {
            let builder = thread::Builder::new();
            builder.spawn_scoped(scope, move || run_thread(number)).ok()
        };
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        let own = run_thread(0);
        let results = others.into_iter().map(|other| match other.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // Joins every thread, whatever the first result is.
        results.fold(own, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_run_once() {
        let mut done = [0; 1000];
        for_each(threads(1000), done.iter_mut().enumerate(), |(i, slot)| *slot += i);
        assert!(done.iter().enumerate().all(|(i, slot)| *slot == i));
    }

    #[test]
    fn an_error_stops_all_threads() {
        let run = |(): &mut (), i| if i == 100 { Err(i) } else { Ok(()) };
        let failed = try_for_each_with(threads(usize::MAX), 0.., |_| Ok(()), run);
        assert_eq!(failed, Err(100));
    }
}
