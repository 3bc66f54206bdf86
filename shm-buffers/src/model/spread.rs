//! Pieces of work over as many threads as there are cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Cores to use, at most one for each of `pieces`.
pub(super) fn threads(pieces: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    pieces.clamp(1, cores)
}

/// Does each piece of work, in any order.
pub(super) fn each<T: Send>(work: impl Iterator<Item = T> + Send, run: impl Fn(T) + Sync) {
    let done: Result<(), std::convert::Infallible> = try_each(
        work,
        || Ok(()),
        |(), piece| {
            run(piece);
            Ok(())
        },
    );
    let Ok(()) = done;
}

/// Does each piece of work, in any order, with a helper that each thread makes once; stops at the first error.
pub(super) fn try_each<T: Send, H, E: Send>(
    work: impl Iterator<Item = T> + Send,
    helper: impl Fn() -> Result<H, E> + Sync,
    run: impl Fn(&mut H, T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let pieces = work.size_hint().1.unwrap_or(usize::MAX);
    let work = Mutex::new(work);
    let stopped = AtomicBool::new(false);
    let next = || match stopped.load(Ordering::Relaxed) {
        true => None,
        false => work.lock().ok()?.next(),
    };
    let some = || {
        let mut helper = helper()?;
        while let Some(piece) = next() {
            run(&mut helper, piece).inspect_err(|_| stopped.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        // Where a limit forbids more threads, there are fewer.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, some).ok();
        let others: Vec<_> = (1..threads(pieces)).map_while(spawn).collect();
        let mine = some();
        let theirs = others.into_iter().map(|other| match other.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are waited for, whatever the first one says.
        theirs.fold(mine, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        let mut done = [0; 1000];
        each(done.iter_mut().enumerate(), |(i, slot)| *slot += i);
        assert!(done.iter().enumerate().all(|(i, slot)| *slot == i));
    }

    #[test]
    fn an_error_ends_it() {
        let failed = try_each(0.., || Ok(()), |(), i| if i == 100 { Err(i) } else { Ok(()) });
        assert_eq!(failed, Err(100));
    }
}
