//! Large payloads. A task of 100 MB whose op returns it; floor: two memcpys into memory that is in use. And 400 MB of outputs in
//! several sizes; floor: a copy of the same bytes within the leader.
//!
//! The pool copies bytes twice in each direction: into memory that both processes have, and into new memory of the receiver. It is new
//! because the op and the caller each own a value. A vector inside of another type is copied once more on each side, because serde writes to a
//! buffer and reads from one. All copies count, because the caller waits for them.

use std::time::Instant;

use proc_pool::{BoxError, Builder, CallError, EntryPoint, OutputBuf, Service, WorkerContext, Workers};
use serde::{Deserialize, Serialize};

use crate::report::{Report, Target, span};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS};

const LARGE: usize = 100_000_000;

/// Outputs its task.
pub(crate) struct Echo;

impl Service for Echo {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        output.put(task);
        Ok(())
    }
}

/// Outputs the beginning of a buffer; the task is its length.
struct Wide(Vec<u8>);

impl Service for Wide {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        Ok(Self(vec![7; LARGE]))
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        let len = task.try_into().map(u64::from_le_bytes);
        let len = len.map_err(|_| CallError::Task("no length".to_owned()))? as usize;
        output.put(&self.0[..len]);
        Ok(())
    }
}

/// Measures outputs of several sizes, each dropped before the next one is taken.
fn outputs(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    const BYTES: usize = 400_000_000;
    report.heading("400 MB of outputs, of two workers");
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build(EntryPoint::service::<Wide>(), &[])?;
    let source = vec![7; LARGE];
    for (name, len) in [
        ("128 KiB each", 128 << 10),
        ("1 MiB each", 1 << 20),
        ("8 MiB each", 8 << 20),
        ("100 MB each", LARGE),
    ] {
        let count = BYTES / len;
        let task = (len as u64).to_le_bytes();
        let (mut floor, mut ours) = (Samples::new(), Samples::new());
        for _ in 0..effort.repeats {
            let started = Instant::now();
            for _ in 0..count {
                std::hint::black_box(source[..len].to_vec());
            }
            floor.push(started.elapsed().as_nanos() as f64);

            let started = Instant::now();
            for output in pool.map_unordered(std::iter::repeat_n(task, count)) {
                if output?.len() != len {
                    return Err("an output has another length".into());
                }
            }
            ours.push(started.elapsed().as_nanos() as f64);
        }
        report.row(
            name,
            span(ours.median()),
            ("copied once", span(floor.median())),
            &floor.over(&ours),
            Target::None,
        );
    }
    Ok(())
}

/// A vector inside of another type, as most models and results have them.
#[derive(Clone, Serialize, Deserialize)]
struct Scores {
    user: u64,
    scores: Vec<f32>,
}

fn identity(scores: Scores) -> Scores {
    scores
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("A task of 100 MB there and back, its op gives it back");
    let builder = Builder::new().workers(Workers::Count(WORKERS));
    let bytes = builder.clone().build(EntryPoint::service::<Echo>(), &[])?;
    let plain = builder.clone().build_op(|numbers: Vec<f32>| numbers)?;
    let typed = builder.build_op(identity)?;
    let task: Vec<u8> = (0..LARGE).map(|n| n as u8).collect();
    let numbers: Vec<f32> = (0..LARGE / 4).map(|n| n as f32).collect();
    let (mut first, mut second) = (task.clone(), task.clone());
    let (mut floor, mut ours) = (Samples::new(), [const { Samples::new() }; 3]);
    for _ in 0..effort.repeats {
        let started = Instant::now();
        first.copy_from_slice(std::hint::black_box(&task));
        second.copy_from_slice(std::hint::black_box(&first));
        std::hint::black_box(&mut second);
        floor.push(started.elapsed().as_nanos() as f64);

        let value = task.clone();
        let started = Instant::now();
        let output = bytes.map_unordered([value]).next().ok_or("no output")??;
        ours[0].push(started.elapsed().as_nanos() as f64);
        check::<u8>(&output, &task)?;
        drop(output);

        let value = numbers.clone();
        let started = Instant::now();
        let output = plain.map_unordered([value]).next().ok_or("no output")??;
        ours[1].push(started.elapsed().as_nanos() as f64);
        check(&output, &numbers)?;
        drop(output);

        let value = Scores {
            user: 7,
            scores: numbers.clone(),
        };
        let started = Instant::now();
        let output = typed.map_unordered([value]).next().ok_or("no output")??;
        ours[2].push(started.elapsed().as_nanos() as f64);
        check(&output.scores, &numbers)?;
    }
    let names = ["bytes", "vector", "struct with a vector"];
    let targets = [Target::AtLeast(0.5); 3];
    for ((name, ours), target) in names.iter().zip(&ours).zip(targets) {
        report.row(
            name,
            span(ours.median()),
            ("two warm memcpys", span(floor.median())),
            &floor.over(ours),
            target,
        );
    }
    outputs(effort, report)
}

fn check<T: PartialEq>(output: &[T], task: &[T]) -> Result<(), Failure> {
    match output == task {
        true => Ok(()),
        false => Err("the output differs from the task".into()),
    }
}
