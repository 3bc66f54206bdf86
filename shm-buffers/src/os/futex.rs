//! Sleeping on a word of shared memory, and waking who does: `futex(2)`.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};

/// Of a word, what the system compares.
const LOW: usize = if cfg!(target_endian = "big") { 1 } else { 0 };

/// Sleeps if the lower half of `word` is that of `value`, until somebody [wakes](wake) who sleeps there, or a signal comes.
pub(crate) fn wait(word: &AtomicU64, value: u64) -> io::Result<()> {
    // Not private: the other side is another process.
    match futex::wait(low(word), Flags::empty(), value as u32, None) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Wakes all who sleep at `word`.
pub(crate) fn wake(word: &AtomicU64) -> io::Result<()> {
    futex::wake(low(word), Flags::empty(), i32::MAX as u32)?;
    Ok(())
}

/// The lower half of a word. For its address: Rust's memory model knows no accesses of different sizes to one atomic.
fn low(word: &AtomicU64) -> &AtomicU32 {
    let half = word.as_ptr().cast::<AtomicU32>().wrapping_add(LOW);
    // SAFETY: a half of `word`, which outlives the reference, and aligned for its size. As in an `AtomicU64`, its bytes
    // may change under a shared reference.
    unsafe { &*half }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::thread;

    #[test]
    fn who_sleeps_is_woken_and_nobody_sleeps_on_another_value() {
        let word = AtomicU64::new(7 << 32 | 1);
        wait(&word, 2).expect("the system has it");
        thread::scope(|scope| {
            scope.spawn(|| {
                while word.load(Ordering::Acquire) & 1 == 1 {
                    wait(&word, 1).expect("the system has it");
                }
            });
            word.store(7 << 32 | 2, Ordering::Release);
            wake(&word).expect("the system has it");
        });
    }
}
