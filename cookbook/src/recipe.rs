//! [`check`]: the private memory of each worker against the size of the model.

use std::time::Duration;

use invoker::report::{Report, WorkerTimes};
use invoker::{BoxError, Invoker};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::private_bytes;

/// The number of worker processes of a recipe, without the argument `--workers`.
const WORKERS: usize = 2;

/// The private memory that a worker may have without a model, in bytes: its heap and stacks. It is about 500 kB; ops add to it.
const OWN: u64 = 2 << 20;

/// The private memory of a worker for each buffer of the model, in bytes.
const PER_BUFFER: u64 = 64;

/// How many copies of a model there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// One, in shared memory or in mapped files.
    One,
    /// One of the bytes, and for each worker an object for each of this number of buffers.
    OneInBuffers(u64),
    /// One for each worker: an object that it makes from the model, of at least this number of bytes.
    PerWorker(u64),
}

/// The measurements of a recipe, made before its workers ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Measured {
    /// The bytes of the model in shared memory.
    pub shared: u64,
    /// The bytes of the model in mapped files.
    pub mapped: u64,
    /// The proportional set sizes of the leader and all workers together, in bytes. 0 where the system does not report them.
    pub pss: u64,
    /// The private memory of each worker in bytes, where the system reports it.
    pub private: Vec<u64>,
    /// The longest time in which a worker has attached the model.
    pub attach: Duration,
}

/// Returns the number of workers: that of the argument `--workers`, or two.
///
/// # Panics
/// If the argument is not a number.
pub fn workers() -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--workers");
    arguments
        .nth(1)
        .map_or(WORKERS, |number| number.parse().expect("the number of workers"))
}

/// Returns `size`, or a fifth of it if the program has the argument `--small`.
pub fn scaled(size: u32) -> u32 {
    if has_argument("--small") { size / 5 } else { size }
}

fn has_argument(wanted: &str) -> bool {
    std::env::args().any(|argument| argument == wanted)
}

/// Checks the private memory of each worker after its tasks, prints a line about the recipe, and finishes the invoker.
///
/// # Errors
/// Those of [`measure`].
pub fn check<M, T, R>(name: &str, copies: Copies, invoker: Invoker<M, T, R>) -> Result<(), BoxError>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    measure(name, copies, invoker).map(drop)
}

/// Does what [`check`] does, and returns what was measured. With the argument `--table` it prints a row of a table instead of the line.
///
/// # Errors
/// If a worker has more private memory than its limit, or less than the copy that the recipe declares; if the model is too small for
/// the check; and those of [`Invoker::finish`].
pub fn measure<M, T, R>(name: &str, copies: Copies, invoker: Invoker<M, T, R>) -> Result<Measured, BoxError>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    let pids = invoker.pids();
    let private: Vec<u64> = pids.iter().filter_map(|(_, pid)| private_bytes(*pid)).collect();
    let report = invoker.finish()?;
    let model = report
        .model
        .as_ref()
        .ok_or("the model is not shared: these are not worker processes")?;
    let attach = report.worker_times.iter().map(|worker| worker.attach).max();
    let measured = Measured {
        shared: model.bytes,
        mapped: model.mapped,
        pss: report.memory.as_ref().map_or(0, |memory| memory.total_pss),
        private,
        attach: attach.unwrap_or_default(),
    };
    match has_argument("--table") {
        true => println!("{}", row(name, copies, &measured)),
        false => println!("{}", line(name, copies, &measured, &report)),
    }
    let (read, started) = (measured.private.len(), report.workers);
    if cfg!(target_os = "linux") && read != started {
        return Err(format!("{read} of {started} workers have reported their memory").into());
    }
    let bytes = measured.shared + measured.mapped;
    let mut private = measured.private.iter();
    private.try_for_each(|private| fits(copies, bytes, *private))?;
    Ok(measured)
}

/// Prints a line about the same recipe with threads, which have one copy of `bytes` bytes, made in the time `load`, and finishes the
/// invoker.
///
/// # Errors
/// If the workers are processes, and those of [`Invoker::finish`].
pub fn finish_threads<M, T, R>(
    name: &str,
    bytes: u64,
    load: Duration,
    invoker: Invoker<M, T, R>,
) -> Result<(), BoxError>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    let report = invoker.finish()?;
    if report.processes.is_some() {
        return Err("the workers are processes, and have a copy each".into());
    }
    if has_argument("--table") {
        return Ok(());
    }
    println!(
        "{name:16} with threads: one copy of {} for all, made in {}",
        megabytes(bytes),
        milliseconds(load),
    );
    Ok(())
}

/// Returns the cells of a recipe for `cargo xtask cookbook --table`, with tabs between them.
fn row(name: &str, copies: Copies, measured: &Measured) -> String {
    let mapped = match measured.mapped {
        0 => String::new(),
        bytes => megabytes(bytes),
    };
    let largest = measured.private.iter().max().copied().unwrap_or(0);
    [
        name.to_owned(),
        megabytes(measured.shared),
        mapped,
        megabytes(measured.pss),
        megabytes(largest),
        milliseconds(measured.attach),
        match copies {
            Copies::One | Copies::OneInBuffers(_) => "1".to_owned(),
            Copies::PerWorker(_) => measured.private.len().to_string(),
        },
    ]
    .join("\t")
}

fn line(name: &str, copies: Copies, measured: &Measured, report: &Report) -> String {
    let copy = match copies {
        Copies::One | Copies::OneInBuffers(_) => String::new(),
        Copies::PerWorker(bytes) => format!(", of which the copy is {}", megabytes(bytes)),
    };
    let times =
        |of: fn(&WorkerTimes) -> Duration| listed(report.worker_times.iter().map(of).map(milliseconds));
    format!(
        "{name:16} model {}, private {}{copy}; share {}, attach {}, state {}",
        megabytes(measured.shared + measured.mapped),
        listed(measured.private.iter().map(|bytes| megabytes(*bytes))),
        milliseconds(report.times.share),
        times(|worker| worker.attach),
        times(|worker| worker.state),
    )
}

fn fits(copies: Copies, model: u64, private: u64) -> Result<(), BoxError> {
    let objects = match copies {
        Copies::One => 0,
        Copies::OneInBuffers(buffers) => PER_BUFFER * buffers,
        Copies::PerWorker(bytes) if bytes < OWN => {
            return Err(format!("a copy of {bytes} bytes is less than what a worker needs").into());
        }
        Copies::PerWorker(bytes) if private < bytes => {
            return Err(
                format!("a worker has {private} private bytes, less than its copy of {bytes}").into(),
            );
        }
        Copies::PerWorker(_) => return Ok(()),
    };
    let limit = OWN + model / 8 + objects;
    if objects == 0 && model < 2 * limit {
        return Err(format!("a model of {model} bytes is too small for a limit of {limit}").into());
    }
    if private > limit {
        return Err(format!("a worker has {private} private bytes, more than {limit}").into());
    }
    Ok(())
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" and ")
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_told_apart() {
        const MODEL: u64 = 8_000_000;
        for (copies, private, is_right) in [
            (Copies::One, 1_000_000, true),
            (Copies::One, MODEL, false),
            (Copies::OneInBuffers(100_000), MODEL, true),
            (Copies::OneInBuffers(100_000), 2 * MODEL, false),
            (Copies::PerWorker(MODEL), MODEL + 1_000_000, true),
            (Copies::PerWorker(MODEL), 1_000_000, false),
        ] {
            assert_eq!(
                fits(copies, MODEL, private).is_ok(),
                is_right,
                "{copies:?} {private}"
            );
        }
        assert!(
            fits(Copies::One, 1_000_000, 0).is_err(),
            "nothing could exceed the limit"
        );
        assert!(
            fits(Copies::PerWorker(1000), 1 << 30, 1 << 30).is_err(),
            "any worker has so much"
        );
    }

    #[test]
    fn numbers_are_printed_with_one_decimal() {
        assert_eq!(megabytes(12_345_678), "12.3 MB");
        assert_eq!(milliseconds(Duration::from_micros(1250)), "1.2 ms");
    }

    #[test]
    fn a_row_has_the_largest_private_memory() {
        let measured = Measured {
            shared: 9_000_000,
            mapped: 0,
            pss: 12_000_000,
            private: vec![500_000, 700_000],
            attach: Duration::from_micros(300),
        };
        assert_eq!(
            row("any", Copies::One, &measured),
            "any\t9.0 MB\t\t12.0 MB\t0.7 MB\t0.3 ms\t1"
        );
        assert!(row("any", Copies::PerWorker(1), &measured).ends_with("\t2"));
    }
}
