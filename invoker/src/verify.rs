//! [`Verification`]: whether outputs depend on anything but their tasks.

use std::fmt;

use proc_pool::{Codec, LocalPool, Pool, PoolError, Postcard, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::invoker::{Invoker, Place};
use crate::seed::{Seeded, Seeds};

/// What came of running tasks twice, each time in another worker. Made by [`Invoker::verify`](crate::Invoker::verify).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// Tasks that had an output both times.
    pub compared: u64,
    /// Positions of those whose outputs differ, rising.
    pub different: Vec<u64>,
    /// Positions of the tasks that failed at least once, rising.
    pub failed: Vec<u64>,
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            compared,
            different,
            failed,
        } = self;
        write!(f, "{compared} tasks run twice: {} differ", different.len())?;
        if let Some(first) = different.first() {
            write!(f, ", the first is task {first}")?;
        }
        match failed.first() {
            None => Ok(()),
            Some(first) => write!(f, "; {} failed, the first is task {first}", failed.len()),
        }
    }
}

type Start<P> = Box<dyn Fn() -> Result<P, PoolError> + Send + Sync>;

/// Makes another worker of the same op and model.
pub(crate) enum Another<T, R> {
    Process(Start<Pool<Seeded<T>, R>>),
    Thread(Start<LocalPool<Seeded<T>, R>>),
}

impl<M, T, R> Invoker<M, T, R>
where
    M: Serialize + DeserializeOwned + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// Runs every task twice, in one of the workers and in another one that is started for it, and compares the encoded
    /// outputs byte for byte. Where they differ, the op depends on more than model, task and seed: on a random generator
    /// of its own, the order of tasks, memory that was never written. Give it a sample:
    ///
    /// ```no_run
    /// # use invoker::Invoker;
    /// # invoker::init();
    /// let invoker = Invoker::builder(|scale: &f64, n: u32| scale * f64::from(n)).model(2.0).build()?;
    /// let verification = invoker.verify((0..1_000_000).step_by(1000))?;
    /// assert!(verification.different.is_empty(), "{verification}");
    /// # Ok::<(), invoker::Error>(())
    /// ```
    ///
    /// They are not counted in the report and move no bar; the other worker's log events go nowhere.
    ///
    /// # Errors
    /// [`Error::Unsupported`] in the caller's thread; when the other worker can't start.
    pub fn verify<I>(&self, tasks: I) -> Result<Verification, Error>
    where
        I: IntoIterator<Item = T>,
        T: Clone,
    {
        let tasks: Vec<T> = tasks.into_iter().collect();
        let seeded = |tasks: Vec<T>| Seeds {
            root: self.settings.seed.value,
            tasks: tasks.into_iter().enumerate(),
        };
        let (ours, theirs) = (seeded(tasks.clone()), seeded(tasks));
        match (&self.place, &self.another) {
            (Place::Processes(it), Some(Another::Process(start))) => {
                Ok(compare(it.pool.map(ours), start()?.map(theirs)))
            }
            (Place::Local { pool, .. }, Some(Another::Thread(start))) => {
                Ok(compare(pool.map(ours), start()?.map(theirs)))
            }
            _ => Err(Error::Unsupported {
                executor: self.settings.executor.value,
                what: "verifying, for want of another worker",
            }),
        }
    }
}

type Output<R> = Result<R, TaskError>;

fn compare<R: Serialize + DeserializeOwned>(
    ours: impl Iterator<Item = Output<R>>,
    theirs: impl Iterator<Item = Output<R>>,
) -> Verification {
    let mut verification = Verification {
        compared: 0,
        different: Vec::new(),
        failed: Vec::new(),
    };
    let encoded = |output: Output<R>| {
        let mut bytes = Vec::new();
        Postcard::encode(&output.ok()?, &mut bytes).ok()?;
        Some(bytes)
    };
    for (task, (ours, theirs)) in (0..).zip(ours.zip(theirs)) {
        let (Some(ours), Some(theirs)) = (encoded(ours), encoded(theirs)) else {
            verification.failed.push(task);
            continue;
        };
        verification.compared += 1;
        if ours != theirs {
            verification.different.push(task);
        }
    }
    verification
}
