//! Tasks with a `Buffer<f32>`, against the same tasks with a `Vec<f32>`.

use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::Buffer;

use super::buffers::element_sum;
use super::{SIZES, builder, make, row};
use crate::report::{Report, Target};
use crate::rounds::Contender;
use crate::{Effort, Failure};

/// A task: its number, and numbers as `B`.
type Task<B> = (u64, B);

/// An op, and what a caller adds up of its output.
type Op<B, R> = (fn(Task<B>) -> R, fn(R) -> u64);

/// The ops, for one type of numbers.
struct Ops<B> {
    ignore: Op<B, u64>,
    sum: Op<B, u64>,
    echo: Op<B, Task<B>>,
}

impl<B: Deref<Target = [f32]>> Ops<B> {
    fn new() -> Self {
        Self {
            ignore: (|(number, _)| number, |number| number),
            sum: (
                |(number, numbers)| {
                    std::hint::black_box(element_sum(&numbers));
                    number
                },
                |number| number,
            ),
            echo: (|task| task, |(number, _)| number),
        }
    }
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let (buffers, vectors) = (Ops::<Buffer<f32>>::new(), Ops::<Vec<f32>>::new());
    report.heading("Tasks by Buffer, of which the op looks at none");
    measure_op(buffers.ignore, vectors.ignore, effort, report)?;
    report.heading("Tasks by Buffer, of which the op sums all elements");
    measure_op(buffers.sum, vectors.sum, effort, report)?;
    report.heading("There and back by Buffer");
    measure_op(buffers.echo, vectors.echo, effort, report)
}

/// Measures an op on tasks of all sizes, as buffers and as vectors.
fn measure_op<R, V>(
    buffers: Op<Buffer<f32>, R>,
    vectors: Op<Vec<f32>, V>,
    effort: Effort,
    report: &mut Report,
) -> Result<(), Failure>
where
    R: Serialize + DeserializeOwned + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    for (bytes, name, ..) in SIZES {
        let contenders = vec![
            Contender::new("ours", run(buffers, bytes, Buffer::from)?),
            Contender::new("Vec<f32>", run(vectors, bytes, |numbers| numbers)?),
        ];
        row(name, bytes, contenders, Target::None, effort, report)?;
    }
    Ok(())
}

/// Returns a function that runs a number of tasks.
fn run<B, R>(
    (op, part): Op<B, R>,
    bytes: usize,
    numbers: fn(Vec<f32>) -> B,
) -> Result<impl FnMut(u64) -> Result<u64, Failure>, Failure>
where
    B: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let pool = builder().build_op(op)?;
    Ok(move |tasks| {
        let inputs = (0..tasks).map(|task| (task, numbers(make(&mut { bytes }, task))));
        let mut sum = 0;
        for output in pool.map_unordered(inputs) {
            sum += part(output?);
        }
        Ok(sum)
    })
}
