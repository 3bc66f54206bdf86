//! Sleeping on a word of shared memory, and waking the sleepers: `futex(2)`.
//!
//! The futexes of the standard library and of crates such as `atomic-wait` are private to one process.
#![allow(unsafe_code, reason = "passes the address of half a word to the system")]

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};
use rustix::time::Timespec;

/// The index of the half of a word that the system compares.
const LOW: usize = if cfg!(target_endian = "big") { 1 } else { 0 };

/// Sleeps until a [`wake`] or a signal, or until this time is over, if the lower half of `word` is that of `value`.
pub(crate) fn wait(word: &AtomicU64, value: u64, timeout: Option<Duration>) -> io::Result<()> {
    // A time that is too long for the system is as good as none.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // Not private: the peer is another process.
    match futex::wait(low(word), Flags::empty(), value as u32, timeout.as_ref()) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Wakes all threads that sleep on `word`.
pub(crate) fn wake(word: &AtomicU64) -> io::Result<()> {
    futex::wake(low(word), Flags::empty(), i32::MAX as u32)?;
    Ok(())
}

/// Returns the lower half of a word. Only its address is used: Rust's memory model has no atomic accesses of mixed sizes.
fn low(word: &AtomicU64) -> &AtomicU32 {
    let half = word.as_ptr().cast::<AtomicU32>().wrapping_add(LOW);
    // SAFETY: the pointer is to one half of `word`, which outlives the reference, and is aligned for a `u32`. As in an
    // `AtomicU64`, the bytes may change under a shared reference.
    unsafe { &*half }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::thread;
    use std::time::Instant;

    #[test]
    fn wait_returns_after_a_wake_and_for_another_value() {
        let word = AtomicU64::new(7 << 32 | 1);
        wait(&word, 2, None).expect("the system call is allowed");
        let forever = Some(Duration::MAX);
        thread::scope(|scope| {
            scope.spawn(|| {
                while word.load(Ordering::Acquire) & 1 == 1 {
                    wait(&word, 1, forever).expect("the system call is allowed");
                }
            });
            word.store(7 << 32 | 2, Ordering::Release);
            wake(&word).expect("the system call is allowed");
        });
    }

    #[test]
    fn wait_returns_when_its_time_is_over() {
        let word = AtomicU64::new(1);
        let (time, began) = (Duration::from_millis(3), Instant::now());
        while began.elapsed() < time {
            wait(&word, 1, Some(time)).expect("the system call is allowed");
        }
    }
}
