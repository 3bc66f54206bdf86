//! [`Verification`]: whether outputs depend on more than model, task and seed.

use std::fmt;

use proc_pool::{Codec, Native, TaskError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The result of [`Invoker::verify`](crate::Invoker::verify), which runs every task in two different workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "`different` lists the tasks whose outputs differ"]
#[non_exhaustive]
pub struct Verification {
    /// Number of tasks that succeeded both times.
    pub compared: u64,
    /// Positions of the tasks whose outputs differ, ascending.
    pub different: Vec<u64>,
    /// Positions of the tasks that failed at least once, ascending.
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

type Output<R> = Result<R, TaskError>;

/// Compares the encoded outputs of the same tasks from two workers.
pub(crate) fn compare<R: Serialize + DeserializeOwned>(
    first: impl Iterator<Item = Output<R>>,
    second: impl Iterator<Item = Output<R>>,
) -> Verification {
    let mut verification = Verification {
        compared: 0,
        different: Vec::new(),
        failed: Vec::new(),
    };
    let encoded = |output: Output<R>| {
        let mut bytes = Vec::new();
        Native::encode(&output.ok()?, &mut bytes).ok()?;
        Some(bytes)
    };
    for (task, (first, second)) in (0..).zip(first.zip(second)) {
        let (Some(first), Some(second)) = (encoded(first), encoded(second)) else {
            verification.failed.push(task);
            continue;
        };
        verification.compared += 1;
        if first != second {
            verification.different.push(task);
        }
    }
    verification
}
