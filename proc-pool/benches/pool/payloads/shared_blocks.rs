//! A floor of outputs by value: what two cores can hand over through memory that they share. Two threads make the outputs and copy them
//! into blocks, and the caller's thread copies each into a new vector. There are no processes, frames, checks or codecs. The
//! number of bytes under way is that of a pool.

use std::thread;

use crossbeam_channel::{bounded, unbounded};

use super::streams::share;
use super::{WORKERS, copy, make};
use crate::Failure;

/// Number of bytes up to which any number of blocks is under way for each thread.
const UNDER_WAY: usize = 1 << 20;
/// Maximum number of larger blocks, and of their bytes. Of still larger ones, there are two.
const LARGE_BLOCKS: usize = 6;
const LARGE_UNDER_WAY: usize = 6 << 20;
/// Maximum number of blocks of each thread.
const BLOCKS: usize = 64;

/// Returns the sum of the first elements of outputs.
pub(super) fn hand_over(tasks: u64, bytes: usize) -> Result<u64, Failure> {
    let large = (LARGE_UNDER_WAY / bytes).min(LARGE_BLOCKS);
    let blocks = (UNDER_WAY / bytes).max(large).clamp(2, BLOCKS);
    thread::scope(|scope| {
        let (filled, outputs) = unbounded::<(usize, Vec<f32>)>();
        let returns: Vec<_> = (0..WORKERS)
            .map(|thread| {
                let (give_back, free) = bounded(blocks);
                for _ in 0..blocks {
                    give_back.send(vec![0.0; bytes / size_of::<f32>()])?;
                }
                let filled = filled.clone();
                scope.spawn(move || {
                    for task in share(tasks, thread, WORKERS) {
                        let output = make(&mut { bytes }, task);
                        // The caller has ended if it gives no block back.
                        let Ok(mut block) = free.recv() else { return };
                        block.copy_from_slice(&output);
                        if filled.send((thread, block)).is_err() {
                            return;
                        }
                    }
                });
                Ok(give_back)
            })
            .collect::<Result<_, Failure>>()?;
        drop(filled);
        let mut sum = 0;
        for (thread, block) in outputs {
            sum += copy(&block)[0] as u64;
            let _ = returns[thread].send(block);
        }
        Ok(sum)
    })
}
