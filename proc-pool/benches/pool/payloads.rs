//! Payloads of 256 B to 64 MiB by value: outputs of an op that makes a `Vec<f32>`, and `Vec<u8>`s that the op returns.
//!
//! Peer: the program that a user would write without a pool, in its strong form. It has two child processes on pipes of 1 MiB. A thread for
//! each child reads into new vectors, and does not zero them. A child receives the range of its tasks in one message, not a message for each
//! task. Both sides make and drop the same vectors. The first element of each is its task, and the sum is checked.

#![allow(unsafe_code, reason = "the peer reads into vectors that are not zeroed")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::thread;

use proc_pool::{BoxError, Builder, EntryPoint, Pool, WorkerContext, Workers};

use crate::child::Part;
use crate::report::{Report, Target};
use crate::rounds::{Contender, contest};
use crate::{Effort, Failure, WORKERS, os};

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
fn number(echo: &[u8]) -> Result<u64, Failure> {
    let first = echo.first_chunk().ok_or("an echo is too short")?;
    Ok(u64::from_ne_bytes(*first))
}

/// The most payloads that are kept at the same time, in bytes.
const KEPT: usize = 256 << 20;

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Outputs by value, Vec<f32>, of two workers");
    for (bytes, name, target, _) in SIZES {
        let start = |_: &mut WorkerContext, bytes: usize| -> Result<usize, BoxError> { Ok(bytes) };
        let pool = builder().build(EntryPoint::op_with_state(start, make), &bytes)?;
        let mut pipes = Pipes::start("outputs", bytes)?;
        let ours = |tasks| sum(pool.map_unordered(0..tasks), bytes);
        let contenders = [
            Contender::new("ours", ours),
            Contender::new("strong pipes", |tasks| pipes.outputs(tasks)),
        ];
        row(name, bytes, contenders, target, effort, report)?;
    }
    report.heading("Outputs by value, of which the last 256 MiB are kept");
    for (bytes, name, ..) in SIZES {
        let start = |_: &mut WorkerContext, bytes: usize| -> Result<usize, BoxError> { Ok(bytes) };
        let pool = builder().build(EntryPoint::op_with_state(start, make), &bytes)?;
        let mut pipes = Pipes::start("outputs", bytes)?;
        let target = match bytes >= 32 << 10 {
            true => Target::AtLeast(1.2),
            false => Target::None,
        };
        let contenders = [
            Contender::new("ours", |tasks| keep(pool.map_unordered(0..tasks), bytes)),
            Contender::new("strong pipes", |tasks| pipes.kept(tasks)),
        ];
        row(name, bytes, contenders, target, effort, report)?;
    }
    report.heading("There and back by value, Vec<u8>, by two workers");
    for (bytes, name, _, target) in SIZES {
        let pool: Pool<Vec<u8>, Vec<u8>> = builder().build_op(echo)?;
        let mut pipes = Pipes::start("echoes", bytes)?;
        let template = vec![7; bytes];
        let contenders = [
            Contender::new("ours", |tasks| {
                let inputs = (0..tasks).map(|task| {
                    let mut input = template.clone();
                    input[..8].copy_from_slice(&task.to_ne_bytes());
                    input
                });
                let mut sum = 0;
                for output in pool.map_unordered(inputs) {
                    sum += number(&output?)?;
                }
                Ok(sum)
            }),
            Contender::new("strong pipes", |tasks| pipes.echoes(tasks)),
        ];
        row(name, bytes, contenders, target, effort, report)?;
    }
    Ok(())
}

fn builder() -> Builder {
    Builder::new().workers(Workers::Count(WORKERS))
}

fn sum<E: Into<Failure>>(
    outputs: impl Iterator<Item = Result<Vec<f32>, E>>,
    bytes: usize,
) -> Result<u64, Failure> {
    let mut sum = 0;
    for output in outputs {
        sum += first(&output.map_err(Into::into)?, bytes)?;
    }
    Ok(sum)
}

/// Keeps the last outputs, and returns the sum of all.
fn keep<E: Into<Failure>>(
    outputs: impl Iterator<Item = Result<Vec<f32>, E>>,
    bytes: usize,
) -> Result<u64, Failure> {
    let mut kept = Vec::new();
    let mut sum = 0;
    for output in outputs {
        let output = output.map_err(Into::into)?;
        sum += first(&output, bytes)?;
        kept.push(output);
        if kept.len() >= KEPT / bytes {
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

fn row(
    name: &str,
    bytes: usize,
    contenders: [Contender<'_>; 2],
    target: Target,
    effort: Effort,
    report: &mut Report,
) -> Result<(), Failure> {
    // Enough that both workers are busy, and few of the large ones.
    let unit = (16 << 20) / bytes as u64;
    let mut contenders = contenders.map(|contender| contender.in_units_of(unit.clamp(4, 256)));
    let rates = contest(&mut contenders, effort)?;
    let speed = |rate: f64| format!("{:.0} MB/s", rate * bytes as f64 / 1e6);
    report.row(
        name,
        speed(rates[0].median()),
        (contenders[1].name, speed(rates[1].median())),
        &rates[0].over(&rates[1]),
        target,
    );
    for (contender, rates) in contenders.iter().zip(&rates) {
        report.point(contender.name, "MB/s", bytes, &rates.scaled(bytes as f64 / 1e6));
    }
    Ok(())
}

/// Two child processes on large pipes.
struct Pipes {
    parts: Vec<Part>,
    bytes: usize,
}

impl Pipes {
    fn start(what: &str, bytes: usize) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        for _ in 0..WORKERS {
            let part = Part::start(&[what, &bytes.to_string()])?;
            enlarge(&part)?;
            parts.push(part);
        }
        Ok(Self { parts, bytes })
    }

    fn outputs(&mut self, tasks: u64) -> Result<u64, Failure> {
        self.read(tasks, |output, _| first(&output, output.len() * size_of::<f32>()))
    }

    fn kept(&mut self, tasks: u64) -> Result<u64, Failure> {
        let most = KEPT / self.bytes / WORKERS;
        self.read(tasks, |output, kept| {
            let first = first(&output, output.len() * size_of::<f32>());
            kept.push(output);
            if kept.len() >= most {
                kept.clear();
            }
            first
        })
    }

    /// Has the children make the outputs of `0..tasks`, and calls `take` for each in the thread of its child.
    fn read(
        &mut self,
        tasks: u64,
        take: impl Fn(Vec<f32>, &mut Vec<Vec<f32>>) -> Result<u64, Failure> + Sync,
    ) -> Result<u64, Failure> {
        let (bytes, take) = (self.bytes, &take);
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for (worker, part) in (0..).zip(&mut self.parts) {
                let share = share(tasks, worker);
                part.input.write_all(&share.start.to_ne_bytes())?;
                part.input.write_all(&share.end.to_ne_bytes())?;
                let output = &mut part.output;
                readers.push(scope.spawn(move || {
                    let mut kept = Vec::new();
                    share.map(|_| take(read_numbers(output, bytes)?, &mut kept)).sum()
                }));
            }
            sum_of(readers)
        })
    }

    fn echoes(&mut self, tasks: u64) -> Result<u64, Failure> {
        let bytes = self.bytes;
        let (mut inputs, outputs): (Vec<_>, Vec<_>) = self
            .parts
            .iter_mut()
            .map(|part| (&mut part.input, &mut part.output))
            .unzip();
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for (worker, output) in (0..).zip(outputs) {
                let share = share(tasks, worker);
                readers.push(scope.spawn(move || share.map(|_| number(&read_bytes(output, bytes)?)).sum()));
            }
            let mut template = vec![7; bytes];
            // In the order of the tasks of a share, so that both children are busy.
            let mut shares: Vec<Range<u64>> =
                (0..).take(WORKERS).map(|worker| share(tasks, worker)).collect();
            for turn in 0..tasks {
                let worker = turn as usize % WORKERS;
                if let Some(task) = shares[worker].next() {
                    template[..8].copy_from_slice(&task.to_ne_bytes());
                    inputs[worker].write_all(&template)?;
                }
            }
            sum_of(readers)
        })
    }
}

type Reader<'s> = thread::ScopedJoinHandle<'s, Result<u64, Failure>>;

fn sum_of(readers: Vec<Reader<'_>>) -> Result<u64, Failure> {
    readers.into_iter().try_fold(0, |sum, reader| {
        Ok(sum + reader.join().map_err(|_| "a reader panicked")??)
    })
}

/// Returns the tasks of a child.
fn share(tasks: u64, worker: u64) -> Range<u64> {
    let workers = WORKERS as u64;
    tasks * worker / workers..tasks * (worker + 1) / workers
}

/// Runs in a child: makes outputs for ranges of tasks.
pub(crate) fn make_outputs(mut bytes: usize) -> Result<(), Failure> {
    let (mut input, mut output) = os::stdio()?;
    let mut range = [0; 16];
    while read_or_end(&mut input, &mut range)? {
        let numbers = range.as_chunks().0;
        for task in u64::from_ne_bytes(numbers[0])..u64::from_ne_bytes(numbers[1]) {
            output.write_all(bytemuck::cast_slice(&make(&mut bytes, task)))?;
        }
    }
    Ok(())
}

/// Runs in a child: writes back what it reads.
pub(crate) fn return_echoes(bytes: usize) -> Result<(), Failure> {
    let (mut input, mut output) = os::stdio()?;
    loop {
        let Ok(task) = read_bytes(&mut input, bytes) else {
            return Ok(());
        };
        output.write_all(&echo(task))?;
    }
}

fn read_or_end(input: &mut File, bytes: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads into a new vector. It is not zeroed before.
#[cfg(target_os = "linux")]
fn read_bytes(input: &mut impl std::os::fd::AsFd, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut vec = Vec::with_capacity(bytes);
    while vec.len() < bytes {
        if rustix::io::read(&mut *input, rustix::buffer::spare_capacity(&mut vec))? == 0 {
            return Err("the pipe has ended".into());
        }
    }
    Ok(vec)
}

#[cfg(not(target_os = "linux"))]
fn read_bytes(input: &mut impl Read, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut vec = vec![0; bytes];
    input.read_exact(&mut vec)?;
    Ok(vec)
}

/// Reads into a new vector. It is not zeroed before.
#[cfg(target_os = "linux")]
fn read_numbers(input: &mut impl std::os::fd::AsFd, bytes: usize) -> Result<Vec<f32>, Failure> {
    use std::mem::MaybeUninit;

    let mut vec = Vec::<f32>::with_capacity(bytes / size_of::<f32>());
    let mut filled = 0;
    while filled < bytes {
        let spare = vec.spare_capacity_mut();
        // SAFETY: the spare capacity is memory of the vector; any bytes may be uninitialized, and bytes have no alignment.
        let spare = unsafe {
            std::slice::from_raw_parts_mut(spare.as_mut_ptr().cast::<MaybeUninit<u8>>(), size_of_val(spare))
        };
        let (read, _) = rustix::io::read(&mut *input, &mut spare[filled..bytes])?;
        if read.is_empty() {
            return Err("the pipe has ended".into());
        }
        filled += read.len();
    }
    // SAFETY: `bytes` bytes were read, and any bytes are valid numbers.
    unsafe { vec.set_len(bytes / size_of::<f32>()) };
    Ok(vec)
}

#[cfg(not(target_os = "linux"))]
fn read_numbers(input: &mut impl Read, bytes: usize) -> Result<Vec<f32>, Failure> {
    let mut vec = vec![0.0; bytes / size_of::<f32>()];
    input.read_exact(bytemuck::cast_slice_mut(&mut vec))?;
    Ok(vec)
}

/// Enlarges a child's pipes to 1 MiB.
#[cfg(target_os = "linux")]
fn enlarge(part: &Part) -> Result<(), Failure> {
    rustix::pipe::fcntl_setpipe_size(&part.input, 1 << 20)?;
    rustix::pipe::fcntl_setpipe_size(&part.output, 1 << 20)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn enlarge(_: &Part) -> Result<(), Failure> {
    Ok(())
}
