//! The op and the model of the tests.

use std::time::Duration;

use invoker::{Buffer, WithContext, task_seed};
use serde::{Deserialize, Serialize};

pub(crate) type Model = Buffer<u64>;

/// A task: its number, how long it takes, and bytes that it carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) number: u64,
    pub(crate) work: Work,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Returns immediately.
    None,
    Sleep(Duration),
    Panic,
    /// Kills its worker process.
    Exit,
    /// Kills its node.
    KillNode,
    /// Returns this number of bytes.
    Output(usize),
    /// Logs a warning.
    Log,
    /// Reads all of the model.
    Sum,
}

impl Task {
    pub(crate) fn new(number: u64, work: Work) -> Self {
        Self {
            number,
            work,
            payload: Vec::new(),
        }
    }
}

pub(crate) fn numbers(count: u64, work: Work) -> impl ExactSizeIterator<Item = Task> {
    let count = usize::try_from(count).expect("few");
    (0..count).map(move |number| Task::new(number as u64, work))
}

pub(crate) fn model() -> Model {
    (0..1_000_u64).map(|n| n * n).collect()
}

/// The output of a task: depends on model, context, task and seed.
pub(crate) type Output = (u64, u64, Vec<u8>);

pub(crate) fn op(model: &WithContext<Model, u64>, task: Task) -> Output {
    let Task {
        number,
        work,
        payload,
    } = task;
    let mut bytes = payload;
    match work {
        Work::None => {}
        Work::Sleep(time) => std::thread::sleep(time),
        Work::Panic => panic!("task {number} panics"),
        Work::Exit => std::process::exit(3),
        Work::KillNode => {
            #[cfg(unix)]
            if let Some(node) = rustix::process::getppid() {
                let _ = rustix::process::kill_process(node, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_secs(60));
        }
        Work::Log => tracing::warn!("task {number} is under way"),
        Work::Sum => bytes = model.model.iter().sum::<u64>().to_le_bytes().to_vec(),
        Work::Output(len) => bytes = vec![number as u8; len],
    }
    let value = model.model[(number % 1_000) as usize] + model.context;
    (value, task_seed().unwrap_or(0), bytes)
}
