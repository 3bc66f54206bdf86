//! A floor of outputs that are kept: each needs memory that its process has not touched since the system gave it. Threads copy the same
//! warm bytes into new vectors, and keep the last of them, without other processes.
//!
//! A pool's leader touches such pages in one thread, the one that takes the outputs; the program on pipes in two.

use std::thread;

use super::keep;
use super::streams::{share, sum_of};
use crate::Failure;

/// Returns the sum of the first elements of outputs.
pub(super) fn touch<const THREADS: usize>(tasks: u64, bytes: usize) -> Result<u64, Failure> {
    thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            scope.spawn(move || {
                let mut template = vec![0.5_f32; bytes / size_of::<f32>()];
                let outputs = share(tasks, thread, THREADS).map(|task| {
                    template[0] = task as f32;
                    Ok::<_, Failure>(super::copy(&template))
                });
                keep(outputs, bytes, super::KEPT / THREADS)
            })
        });
        sum_of(threads.collect())
    })
}
