//! Bare rings to two processes, in batches: the lowest cost of the pool's transport.
//!
//! No side sleeps while there is work, so no side has to be woken: a thread without work yields.

use std::io::{Read, Write};
use std::process;
use std::sync::mpsc;
use std::thread;

use shm_buffers::ring::{Consumer, Producer, PushError};
use shm_buffers::{Backing, Layout, Region, RegionHandle, Span};

use crate::child::Part;
use crate::pipes::{BATCH, BATCH_BYTES, run_batch, sum_of_batch};
use crate::{Failure, WORKERS, os};

/// The size of the pool's rings.
const RING: usize = 256 << 10;

pub(crate) struct Rings(Vec<Worker>);

struct Worker {
    part: Part,
    tasks: Producer,
    outcomes: Consumer,
}

fn layout() -> (Layout, [Span; 2]) {
    let mut layout = Layout::new();
    let spans = [layout.ring(RING), layout.ring(RING)];
    (layout, spans)
}

impl Rings {
    pub(crate) fn start() -> Result<Self, Failure> {
        let workers = (0..WORKERS).map(|_| {
            let (layout, [tasks, outcomes]) = layout();
            let region = Region::create(&Backing::Auto, layout.byte_len())?;
            let handle = postcard::to_stdvec(&region.handle()?)?;
            let mut part = Part::start(&["rings"])?;
            part.input.write_all(&(handle.len() as u64).to_ne_bytes())?;
            part.input.write_all(&handle)?;
            let (tasks, outcomes) = (Producer::new(&region, tasks), Consumer::new(&region, outcomes));
            Ok::<_, Failure>(Worker {
                part,
                tasks,
                outcomes,
            })
        });
        Ok(Self(workers.collect::<Result<_, _>>()?))
    }

    /// Returns the sum of the outputs of `0..tasks`; `tasks` must be a multiple of [`BATCH`].
    pub(crate) fn run(&mut self, tasks: u64) -> Result<u64, Failure> {
        let batches = tasks / BATCH as u64;
        // A word starts a round, an empty batch ends it: a worker without a round sleeps and uses no processor time.
        for worker in &mut self.0 {
            worker.part.input.write_all(&1_u64.to_ne_bytes())?;
        }
        let mut input = 0..tasks;
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        let mut outputs = Vec::with_capacity(BATCH_BYTES);
        let (mut received, mut sum) = (0, 0);
        while received < batches {
            let mut idle = true;
            for worker in &mut self.0 {
                if batch.is_empty() {
                    batch.extend(input.by_ref().take(BATCH).flat_map(u64::to_ne_bytes));
                }
                if !batch.is_empty() && try_push(&mut worker.tasks, &batch)? {
                    batch.clear();
                    idle = false;
                }
                outputs.clear();
                if worker.outcomes.pop(&mut outputs)?.is_some() {
                    sum += sum_of_batch(&outputs);
                    received += 1;
                    idle = false;
                }
            }
            if idle {
                thread::yield_now();
            }
        }
        for worker in &mut self.0 {
            while !try_push(&mut worker.tasks, &[])? {
                thread::yield_now();
            }
        }
        Ok(sum)
    }
}

/// Writes a batch; returns `false` if the ring is full.
fn try_push(ring: &mut Producer, batch: &[u8]) -> Result<bool, Failure> {
    match ring.push(batch) {
        // No consumer sleeps, so none has to be woken.
        Ok(_) => Ok(true),
        Err(PushError::Full) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The part of a worker: runs the batches of a round for each word from its parent.
pub(crate) fn worker() -> Result<(), Failure> {
    let (mut input, _) = os::stdio()?;
    let mut word = [0; 8];
    input.read_exact(&mut word)?;
    let mut handle = vec![0; u64::from_ne_bytes(word) as usize];
    input.read_exact(&mut handle)?;
    let region = Region::attach(&postcard::from_bytes::<RegionHandle>(&handle)?)?;
    let (_, [tasks, outcomes]) = layout();
    let (mut tasks, mut outcomes) = (Consumer::new(&region, tasks), Producer::new(&region, outcomes));
    let (start, rounds) = mpsc::channel();
    thread::spawn(move || {
        while input.read_exact(&mut word).is_ok() && start.send(()).is_ok() {}
        // The leader has ended, perhaps in the middle of a round.
        process::exit(0);
    });
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    for () in rounds {
        loop {
            batch.clear();
            match tasks.pop(&mut batch)? {
                None => thread::yield_now(),
                Some(0) => break,
                Some(_) => {
                    run_batch(&mut batch);
                    while !try_push(&mut outcomes, &batch)? {
                        thread::yield_now();
                    }
                }
            }
        }
    }
    Ok(())
}
