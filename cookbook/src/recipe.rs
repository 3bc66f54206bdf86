//! [`check`]: the private memory of each worker against the size of the model.

use std::time::Duration;

use invoker::report::WorkerTimes;
use invoker::{BoxError, Invoker};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::private_bytes;

/// The number of worker processes of a recipe.
pub const WORKERS: usize = 2;

/// The private memory that a worker may have without a model, in bytes: its heap and stacks. It is about 500 kB; ops add to it.
const OWN: u64 = 2 << 20;

/// How many copies of a model there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// One, in shared memory.
    One,
    /// One for each worker: an object that it makes from the model, of at least this number of bytes.
    PerWorker(u64),
}

/// Returns `size`, or a fifth of it if the program has the argument `--small`.
pub fn scaled(size: u32) -> u32 {
    let is_small = std::env::args().any(|argument| argument == "--small");
    if is_small { size / 5 } else { size }
}

/// Checks the private memory of each worker after its tasks, prints a line about the recipe, and finishes the invoker.
///
/// # Errors
/// If a worker has more private memory than its limit, or less than the copy that the recipe declares; if the model is too small for
/// the check; and those of [`Invoker::finish`].
pub fn check<M, T, R>(name: &str, copies: Copies, invoker: Invoker<M, T, R>) -> Result<(), BoxError>
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
        .ok_or("the model is not shared: these are not worker processes")?;
    let copy = match copies {
        Copies::One => String::new(),
        Copies::PerWorker(bytes) => format!(", of which the copy is {}", megabytes(bytes)),
    };
    let times =
        |of: fn(&WorkerTimes) -> Duration| listed(report.worker_times.iter().map(of).map(milliseconds));
    println!(
        "{name:16} model {}, private {}{copy}; share {}, attach {}, state {}",
        megabytes(model.bytes),
        listed(private.iter().map(|bytes| megabytes(*bytes))),
        milliseconds(report.times.share),
        times(|worker| worker.attach),
        times(|worker| worker.state),
    );
    if cfg!(target_os = "linux") && private.len() != WORKERS {
        return Err(format!(
            "{} of {WORKERS} workers have reported their memory",
            private.len()
        )
        .into());
    }
    private
        .iter()
        .try_for_each(|private| fits(copies, model.bytes, *private))
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
    println!(
        "{name:16} with threads: one copy of {} for all, made in {}",
        megabytes(bytes),
        milliseconds(load),
    );
    Ok(())
}

fn fits(copies: Copies, model: u64, private: u64) -> Result<(), BoxError> {
    match copies {
        Copies::One => {
            let limit = OWN + model / 8;
            if model < 2 * limit {
                return Err(format!("a model of {model} bytes is too small for a limit of {limit}").into());
            }
            if private > limit {
                return Err(format!("a worker has {private} private bytes, more than {limit}").into());
            }
        }
        Copies::PerWorker(bytes) => {
            if bytes < OWN {
                return Err(format!("a copy of {bytes} bytes is less than what a worker needs").into());
            }
            if private < bytes {
                return Err(
                    format!("a worker has {private} private bytes, less than its copy of {bytes}").into(),
                );
            }
        }
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
}
