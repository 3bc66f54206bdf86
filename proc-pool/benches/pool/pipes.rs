//! Bare pipes to two processes, in batches: the lowest cost of crossing a process boundary by system calls.

use std::io::{Read, Write};
use std::thread;

use crate::child::Part;
use crate::{Failure, WORKERS, null};

pub(crate) const BATCH: usize = 256;
pub(crate) const BATCH_BYTES: usize = BATCH * size_of::<u64>();

pub(crate) struct Pipes(Vec<Part>);

impl Pipes {
    pub(crate) fn start() -> Result<Self, Failure> {
        let parts = (0..WORKERS).map(|_| Part::start(&["batches"]));
        Ok(Self(parts.collect::<Result<_, _>>()?))
    }

    /// Returns the sum of the outputs of `0..tasks`; `tasks` must be a multiple of [`BATCH`].
    pub(crate) fn run(&mut self, tasks: u64) -> Result<u64, Failure> {
        let batches = tasks as usize / BATCH;
        let (mut inputs, outputs): (Vec<_>, Vec<_>) = self
            .0
            .iter_mut()
            .map(|part| (&mut part.input, &mut part.output))
            .unzip();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..)
                .zip(outputs)
                .map(|(worker, output)| {
                    let share = (batches + WORKERS - 1 - worker) / WORKERS;
                    scope.spawn(move || sum(output, share))
                })
                .collect();
            let mut input = 0..tasks;
            let mut bytes = Vec::with_capacity(BATCH_BYTES);
            for batch in 0..batches {
                bytes.clear();
                for task in input.by_ref().take(BATCH) {
                    bytes.extend_from_slice(&task.to_ne_bytes());
                }
                inputs[batch % WORKERS].write_all(&bytes)?;
            }
            readers.into_iter().try_fold(0, |sum, reader| {
                Ok(sum + reader.join().map_err(|_| "a reader panicked")??)
            })
        })
    }
}

fn sum(mut output: impl Read, batches: usize) -> Result<u64, Failure> {
    let mut bytes = [0; BATCH_BYTES];
    let mut sum = 0;
    for _ in 0..batches {
        output.read_exact(&mut bytes)?;
        sum += sum_of_batch(&bytes);
    }
    Ok(sum)
}

/// Returns the sum of a batch of outputs.
pub(crate) fn sum_of_batch(outputs: &[u8]) -> u64 {
    let outputs = outputs.as_chunks().0.iter();
    outputs.map(|&output| u64::from_ne_bytes(output)).sum()
}

/// Runs the op on each task of a batch, in place.
pub(crate) fn run_batch(batch: &mut [u8]) {
    for task in batch.as_chunks_mut().0 {
        *task = null::op(u64::from_ne_bytes(*task)).to_ne_bytes();
    }
}
