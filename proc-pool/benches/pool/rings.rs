//! Bare rings to two processes, in batches: what the pool's transport can do with nothing around it.
//!
//! Nobody sleeps while there is work, so nobody is woken: who has nothing to do lets others run.

use std::io::{Read, Write};
use std::process;
use std::sync::mpsc;
use std::thread;

use shm_buffers::ring::{Consumer, Producer, PushError};
use shm_buffers::{Backing, Layout, Region, RegionHandle, Span};

use crate::child::Part;
use crate::pipes::{BATCH, BATCH_BYTES, answer_batch, sum_of_batch};
use crate::{Failure, WORKERS, os};

/// As large as the pool's.
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
            let region = Region::create(&Backing::Auto, layout.bytes())?;
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

    /// The sum of the outputs of `0..tasks`, a multiple of [`BATCH`].
    pub(crate) fn run(&mut self, tasks: u64) -> Result<u64, Failure> {
        let batches = tasks / BATCH as u64;
        // A word begins a round, an empty batch ends it: who has no round sleeps and takes nothing from the others.
        for worker in &mut self.0 {
            worker.part.input.write_all(&1_u64.to_ne_bytes())?;
        }
        let mut input = 0..tasks;
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        let mut outputs = Vec::with_capacity(BATCH_BYTES);
        let (mut given, mut sum) = (0, 0);
        while given < batches {
            let mut idle = true;
            for worker in &mut self.0 {
                if batch.is_empty() {
                    batch.extend(input.by_ref().take(BATCH).flat_map(u64::to_ne_bytes));
                }
                if !batch.is_empty() && pushed(&mut worker.tasks, &batch)? {
                    batch.clear();
                    idle = false;
                }
                outputs.clear();
                if worker.outcomes.pop(&mut outputs)?.is_some() {
                    sum += sum_of_batch(&outputs);
                    given += 1;
                    idle = false;
                }
            }
            if idle {
                thread::yield_now();
            }
        }
        for worker in &mut self.0 {
            while !pushed(&mut worker.tasks, &[])? {
                thread::yield_now();
            }
        }
        Ok(sum)
    }
}

fn pushed(ring: &mut Producer, batch: &[u8]) -> Result<bool, Failure> {
    match ring.push(batch) {
        // Nobody sleeps on a ring.
        Ok(_) => Ok(true),
        Err(PushError::Full) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The part of a worker: for each word from its parent, the batches of a round.
pub(crate) fn worker() -> Result<(), Failure> {
    let (mut input, _) = os::stdio()?;
    let mut word = [0; 8];
    input.read_exact(&mut word)?;
    let mut handle = vec![0; u64::from_ne_bytes(word) as usize];
    input.read_exact(&mut handle)?;
    let region = Region::attach(&postcard::from_bytes::<RegionHandle>(&handle)?)?;
    let (_, [tasks, outcomes]) = layout();
    let (mut tasks, mut outcomes) = (Consumer::new(&region, tasks), Producer::new(&region, outcomes));
    let (begin, rounds) = mpsc::channel();
    thread::spawn(move || {
        while input.read_exact(&mut word).is_ok() && begin.send(()).is_ok() {}
        // The leader has gone, also if that was in the middle of a round.
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
                    answer_batch(&mut batch);
                    while !pushed(&mut outcomes, &batch)? {
                        thread::yield_now();
                    }
                }
            }
        }
    }
    Ok(())
}
