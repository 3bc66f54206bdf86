//! Outputs with a `Buffer<f32>` that the leader copies when it looks at it, against the same baselines as outputs by value.

use proc_pool::{BoxError, EntryPoint, Pool, WorkerContext};
use shm_buffers::Buffer;

use super::streams::Streams;
use super::{KEPT, SIZES, builder, make, row};
use crate::report::{Report, Target};
use crate::rounds::Contender;
use crate::{Effort, Failure};

/// A task, and the same numbers as in an output by value.
type Output = (u64, Buffer<f32>);

fn make_buffer(bytes: &mut usize, task: u64) -> Output {
    (task, make(bytes, task).into())
}

fn pool(bytes: usize) -> Result<Pool<u64, Output>, Failure> {
    let start = |_: &mut WorkerContext, bytes: usize| -> Result<usize, BoxError> { Ok(bytes) };
    Ok(builder().build(EntryPoint::op_with_state(start, make_buffer), &bytes)?)
}

/// The way in which the caller uses an output.
type Use = fn(Buffer<f32>, &mut Vec<Buffer<f32>>) -> u64;

/// The target for outputs of a number of bytes.
type TargetOf = fn(usize) -> Target;

pub(super) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let uses: [(&str, Use, TargetOf); 3] = [
        (
            "Outputs by Buffer, of which the leader looks at none",
            |_, _| 0,
            |bytes| match bytes >= 32 << 10 {
                true => Target::AtLeast(3.0),
                false => Target::None,
            },
        ),
        (
            "Outputs by Buffer, of which the leader sums all elements",
            |output, _| element_sum(&output),
            |_| Target::None,
        ),
        (
            "Outputs by Buffer, of which the last 256 MiB are kept",
            |output, kept| {
                let most = KEPT / (output.len() * size_of::<f32>());
                kept.push(output);
                if kept.len() >= most {
                    kept.clear();
                }
                0
            },
            |_| Target::None,
        ),
    ];
    for (position, (heading, use_output, target)) in uses.into_iter().enumerate() {
        report.heading(heading);
        for (bytes, name, ..) in SIZES {
            let pool = pool(bytes)?;
            let mut streams = Streams::all("outputs", bytes)?;
            let mut contenders = vec![Contender::new("ours", |tasks| {
                let mut kept = Vec::new();
                let mut sum = 0;
                for output in pool.map_unordered(0..tasks) {
                    let (task, buffer) = output?;
                    std::hint::black_box(use_output(buffer, &mut kept));
                    sum += task;
                }
                Ok(sum)
            })];
            for streams in &mut streams {
                let name = streams.name();
                contenders.push(Contender::new(name, move |tasks| match position {
                    0 => streams.outputs(tasks),
                    1 => streams.summed(tasks),
                    _ => streams.kept(tasks),
                }));
            }
            row(name, bytes, contenders, target(bytes), effort, report)?;
        }
    }
    Ok(())
}

/// Returns the sum of the elements, as one number of their type.
pub(super) fn element_sum(elements: &[f32]) -> u64 {
    // In parts, so that the compiler vectorizes it.
    let mut parts = [0.0_f32; 16];
    let (chunks, _) = elements.as_chunks::<16>();
    for chunk in chunks {
        for (part, element) in parts.iter_mut().zip(chunk) {
            *part += element;
        }
    }
    parts.iter().sum::<f32>() as u64
}
