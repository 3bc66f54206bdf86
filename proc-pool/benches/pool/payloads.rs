//! Payloads of 256 B to 64 MiB by value: outputs of an op that makes a `Vec<f32>`, and `Vec<u8>`s that the op returns.
//!
//! The baseline is the program that a user would write without a pool, in its strong form: [`streams`] with pipes. Beside it stand the
//! same program with Unix sockets, one with iceoryx2 if it was built ([`iceoryx2`]), and floors without processes: one thread that makes
//! and copies the same vectors (an echo is copied twice), threads that hand blocks over ([`shared_blocks`]), and the cost of new pages
//! ([`new_pages`]). All sides make and drop the same vectors, also as the inputs of echoes. The first element of each is its task, and the
//! sum is checked.
//!
//! The last tables have what a payload costs ([`costs`]).

mod buffers;
mod costs;
mod iceoryx2;
mod new_pages;
mod shared_blocks;
mod streams;
mod tasks;

use std::iter;

use proc_pool::{BoxError, Builder, EntryPoint, Pool, TaskError, WorkerContext, Workers};

pub(crate) use self::costs::run as run_payloads;
pub(crate) use self::streams::{make_outputs, return_echoes};
pub(crate) use self::tasks::measure as measure_tasks;

use self::iceoryx2::Iceoryx2;
use self::streams::Streams;
use crate::report::{Report, Target};
use crate::rounds::{Contender, Samples, contest};
use crate::{Effort, Failure, WORKERS};

/// A size in bytes, and the targets for outputs and echoes.
const SIZES: [(usize, &str, Target, Target); 8] = [
    (256, "256 B", Target::None, Target::None),
    (4 << 10, "4 KiB", Target::None, Target::None),
    (32 << 10, "32 KiB", Target::AtLeast(2.5), Target::AtLeast(2.5)),
    (128 << 10, "128 KiB", Target::AtLeast(3.0), Target::AtLeast(2.5)),
    (1 << 20, "1 MiB", Target::AtLeast(2.3), Target::AtLeast(1.8)),
    (8 << 20, "8 MiB", Target::AtLeast(2.0), Target::AtLeast(1.5)),
    (32 << 20, "32 MiB", Target::None, Target::None),
    (64 << 20, "64 MiB", Target::None, Target::None),
];

/// Makes an output: numbers, of which the first one is the task.
fn make(bytes: &mut usize, task: u64) -> Vec<f32> {
    let mut output = vec![0.5; *bytes / size_of::<f32>()];
    output[0] = task as f32;
    output
}

fn echo(task: Vec<u8>) -> Vec<u8> {
    task
}

/// Returns the number in the first bytes of an echo.
pub(crate) fn number(echo: &[u8]) -> Result<u64, Failure> {
    let first = echo.first_chunk().ok_or("an echo is too short")?;
    Ok(u64::from_ne_bytes(*first))
}

/// The most payloads that are kept at the same time, in bytes.
const KEPT: usize = 256 << 20;

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Outputs by value, Vec<f32>, of two workers");
    for (bytes, name, target, _) in SIZES {
        let pool = outputs_pool(bytes)?;
        let mut streams = Streams::all("outputs", bytes)?;
        let mut iceoryx2 = Iceoryx2::start(bytes)?;
        let mut contenders = vec![Contender::new("ours", |tasks| {
            sum(pool.map_unordered(0..tasks), bytes)
        })];
        for streams in &mut streams {
            contenders.push(Contender::new(streams.name(), |tasks| streams.outputs(tasks)));
        }
        if let Some(iceoryx2) = &mut iceoryx2 {
            contenders.push(Contender::new("iceoryx2", |tasks| iceoryx2.outputs(tasks)));
        }
        contenders.push(Contender::new("shared blocks of threads", |tasks| {
            shared_blocks::hand_over(tasks, bytes)
        }));
        contenders.push(Contender::new("memcpy", |tasks| {
            sum(
                (0..tasks).map(|task| Ok::<_, Failure>(copied(task, bytes))),
                bytes,
            )
        }));
        row(name, bytes, contenders, target, effort, report)?;
    }
    report.heading("Outputs by value, of which the last 256 MiB are kept");
    for (bytes, name, ..) in SIZES {
        let pool = outputs_pool(bytes)?;
        let mut streams = Streams::all("outputs", bytes)?;
        let target = match bytes >= 32 << 10 {
            true => Target::AtLeast(1.2),
            false => Target::None,
        };
        let mut contenders = vec![Contender::new("ours", |tasks| {
            keep(pool.map_unordered(0..tasks), bytes, KEPT)
        })];
        for streams in &mut streams {
            contenders.push(Contender::new(streams.name(), |tasks| streams.kept(tasks)));
        }
        contenders.push(Contender::new("memcpy", |tasks| {
            keep(
                (0..tasks).map(|task| Ok::<_, Failure>(copied(task, bytes))),
                bytes,
                KEPT,
            )
        }));
        contenders.push(Contender::new("new pages, one thread", |tasks| {
            new_pages::touch::<1>(tasks, bytes)
        }));
        contenders.push(Contender::new("new pages, two threads", |tasks| {
            new_pages::touch::<2>(tasks, bytes)
        }));
        row(name, bytes, contenders, target, effort, report)?;
    }
    report.heading("There and back by value, Vec<u8>, by two workers");
    for (bytes, name, _, target) in SIZES {
        let pool = echo_pool()?;
        let mut streams = Streams::all("echoes", bytes)?;
        let mut contenders = vec![Contender::new("ours", |tasks| {
            sum_of_echoes(pool.map_unordered(echo_inputs(tasks, bytes)))
        })];
        for streams in &mut streams {
            contenders.push(Contender::new(streams.name(), |tasks| streams.echoes(tasks)));
        }
        contenders.push(Contender::new("memcpy", |tasks| {
            echo_inputs(tasks, bytes)
                .map(|input| number(&copy(&copy(&input))))
                .sum()
        }));
        row(name, bytes, contenders, target, effort, report)?;
    }
    buffers::measure(effort, report)?;
    costs::measure(effort, report)
}

/// Returns a pool whose outputs have this size.
pub(crate) fn outputs_pool(bytes: usize) -> Result<Pool<u64, Vec<f32>>, Failure> {
    let start = |_: &mut WorkerContext, bytes: usize| -> Result<usize, BoxError> { Ok(bytes) };
    Ok(builder().build(EntryPoint::op_with_state(start, make), &bytes)?)
}

/// Returns a pool that outputs its tasks.
pub(crate) fn echo_pool() -> Result<Pool<Vec<u8>, Vec<u8>>, Failure> {
    Ok(builder().build_op(echo)?)
}

/// Makes an output and copies it.
fn copied(task: u64, mut bytes: usize) -> Vec<f32> {
    copy(&make(&mut bytes, task))
}

/// Copies into a new vector; the compiler can't leave that out.
fn copy<T: Clone>(values: &[T]) -> Vec<T> {
    std::hint::black_box(values).to_vec()
}

/// Returns inputs of echoes, each with the number of its task in its first bytes.
fn echo_inputs(tasks: u64, bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    let template = vec![7; bytes];
    (0..tasks).map(move |task: u64| {
        let mut input = template.clone();
        input[..8].copy_from_slice(&task.to_ne_bytes());
        input
    })
}

fn builder() -> Builder {
    Builder::new().workers(Workers::Count(WORKERS))
}

/// Returns the sum of the first elements of outputs.
pub(crate) fn sum<E: Into<Failure>>(
    outputs: impl Iterator<Item = Result<Vec<f32>, E>>,
    bytes: usize,
) -> Result<u64, Failure> {
    let mut sum = 0;
    for output in outputs {
        sum += first(&output.map_err(Into::into)?, bytes)?;
    }
    Ok(sum)
}

fn sum_of_echoes(mut echoes: impl Iterator<Item = Result<Vec<u8>, TaskError>>) -> Result<u64, Failure> {
    echoes.try_fold(0, |sum, echo| Ok(sum + number(&echo?)?))
}

/// Keeps the last outputs, of up to `most` bytes together, and returns the sum of all.
fn keep<E: Into<Failure>>(
    outputs: impl Iterator<Item = Result<Vec<f32>, E>>,
    bytes: usize,
    most: usize,
) -> Result<u64, Failure> {
    let mut kept = Vec::new();
    let mut sum = 0;
    for output in outputs {
        let output = output.map_err(Into::into)?;
        sum += first(&output, bytes)?;
        kept.push(output);
        if kept.len() >= most / bytes {
            kept.clear();
        }
    }
    Ok(sum)
}

fn first(output: &[f32], bytes: usize) -> Result<u64, Failure> {
    match output.first() {
        Some(first) if size_of_val(output) == bytes => Ok(*first as u64),
        _ => Err("an output has another length".into()),
    }
}

/// Measures ours, which comes first, against each of the others. The target is that against pipes, which come second.
fn row(
    name: &str,
    bytes: usize,
    contenders: Vec<Contender<'_>>,
    target: Target,
    effort: Effort,
    report: &mut Report,
) -> Result<(), Failure> {
    // Enough that both workers are busy, and few of the large ones.
    let unit = ((16 << 20) / bytes as u64).clamp(4, 256);
    let mut contenders: Vec<_> = contenders
        .into_iter()
        .map(|contender| contender.in_units_of(unit))
        .collect();
    let rates = contest(&mut contenders, effort)?;
    let speed = |rates: &Samples| format!("{:.0} MB/s", rates.median() * bytes as f64 / 1e6);
    let targets = [target].into_iter().chain(iter::repeat(Target::None));
    for ((other, theirs), target) in contenders.iter().zip(&rates).skip(1).zip(targets) {
        report.row(
            name,
            speed(&rates[0]),
            (other.name, speed(theirs)),
            &rates[0].over(theirs),
            target,
        );
    }
    for (contender, rates) in contenders.iter().zip(&rates) {
        report.point(contender.name, "MB/s", bytes, &rates.scaled(bytes as f64 / 1e6));
    }
    Ok(())
}
